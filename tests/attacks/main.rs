//! Attacks, on the hardened network of the house and on small ones of their own: how they are run, the laws of each, and
//! what they find beside the official code and the packages.

mod apgd;
mod apgd_reference;
mod drawn;
mod eot;
mod every;
mod house;
mod packages;
#[path = "../reference/mod.rs"]
mod reference;
mod search;
mod square_reference;
mod suite;
mod transfer;
