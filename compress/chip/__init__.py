"""The network and its front end as C for a microcontroller."""
