//! Law 10: what a caller or an upstream can make big has a cap. Room by room, as each has its own.
