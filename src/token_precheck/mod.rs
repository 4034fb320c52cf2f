//! Refuses, before any quota or network is spent, what would be a 400 anyway.

mod media;
mod scan;
