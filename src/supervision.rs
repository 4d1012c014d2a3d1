//! Actors that come back: the guardian notices a dead actor and recreates it.
