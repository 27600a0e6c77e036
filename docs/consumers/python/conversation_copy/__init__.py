"""An exact copy of Parlance's conversations, made from nothing but its topics and its published schemas."""
