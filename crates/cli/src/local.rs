//! The world of a local build: effects are performed by this process, on this machine.

pub mod clock;
pub mod inputs;
pub mod secrets;
pub mod slots;
pub mod tickets;
pub mod turns;
pub mod world;

pub use world::LocalWorld;
