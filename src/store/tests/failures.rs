//! Calls to the disk fail, one after the other.
