"""Between pixels and a codec of signals: what is asked for, the header of a stream, and what is given back."""
