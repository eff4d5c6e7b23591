//! The node's API, and the types its clients share.
