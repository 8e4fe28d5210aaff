//! `ropewalk work`: runs attempts that a server hands out, and says what came of them.
//!
//! A worker connects outward, proves who it is by its key ([`identity`]), reads what it is to do ([`session`]), and says
//! everything through one outbox ([`outbox`]), which lies on the disk until the server has taken it ([`spool`]). Attempts
//! ([`attempts`]) run on whether a server is there or not. Files of sources ([`source`], [`checkout`]), their history
//! ([`history`]) and files of jobs ([`depot`]) are kept by content ([`content`]). People look into what steps left by shells ([`visit`]), on this
//! worker or on another one ([`layers`]).

pub mod session;

pub mod attempts;
pub mod behind;
pub mod departure;
pub mod depot;
pub mod evaluation;
pub mod health;
pub mod holding;
pub mod identity;
pub mod layers;
pub mod link;
pub mod outbox;
pub mod spares;
pub mod spool;
pub mod visit;

pub mod checkout;
pub mod content;
pub mod history;
pub mod sending;
pub mod source;

pub mod watching;
