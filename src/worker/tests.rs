//! The real loop over ports made of memory: what comes out, and that nothing is lost unaccounted.
