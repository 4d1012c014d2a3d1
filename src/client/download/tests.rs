//! Tests of downloads in virtual time, with scripted servers and an output in memory.
