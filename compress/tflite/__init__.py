"""The int8 network as a .tflite file: written from its QDQ ONNX file, run, compiled for NPUs.

    convert     QDQ ONNX graph -> operators of TFLite in NHWC, the same integers and scales
    flatbuffer  operators -> bytes of a .tflite file
    interpreter the file run by LiteRT
    vela        the file compiled by Arm's Vela: memory, cycles and rate on an Ethos-U
    export      all of it as a run folder
"""
