//! The command line `dunlin`: a client of the API that shows its answers to people.
//!
//! In: arguments and the answers of `dunlind`. Out: tables, or the API's JSON, on standard output;
//! errors, with what to do about them, on standard error; an exit code. It knows nothing that the
//! API does not say, and must never panic, not even when its output is cut off (`| head`).

mod args;
pub mod human;
mod run;
pub mod table;
pub mod view;

pub use args::{Arguments, Command, Task};
pub use run::main;
