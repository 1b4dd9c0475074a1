#!lua name=fortia
