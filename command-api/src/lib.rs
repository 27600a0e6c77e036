//! REST commands, sessions and tokens: the side of Parlance that decides.
