"""int8: from a float ONNX file to one whose weights and arithmetic are 8-bit integers.

prepare     float graph -> the same function without batch norm, in operators with int8 kernels
static      calibration on training windows -> QDQ file -> uint8 or int8, float or 8-bit ends
simulated   the QDQ graph in torch with fake quantisation, trained, and written back
layers      what quantising each layer costs
narrow      weights of 4 bits
clustered   weights that share a codebook
interface   how an 8-bit file reads dB and gives logits
small_file  the same integers in fewer bytes, as they are written
reference   the QDQ graph in integers, in numpy
"""
