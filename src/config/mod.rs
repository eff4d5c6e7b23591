//! The operator's document: parse, validate, diff.

pub mod model;
