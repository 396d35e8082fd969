"""OpenFlow 1.3: a codec of the messages we use, and the channel to a switch."""
