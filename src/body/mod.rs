//! Bodies that the rooms share: a beginning that was read and put back, a request that can be sent twice, a guard that
//! lives to the end, and the one scan of an answer.

pub(crate) mod scan;
pub(crate) mod sse;
