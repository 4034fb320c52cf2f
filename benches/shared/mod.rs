//! The parts that several benches need: bars, a picture, cargo, and the place of their tables in the README.

pub(crate) mod bars;
pub(crate) mod cargo;
pub(crate) mod picture;
pub(crate) mod readme;
