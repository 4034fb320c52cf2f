//! The rows, in the order of the table.

mod beside;
mod hang;
mod outage;
mod overload;
mod recovery;
mod shared;
mod shed;
mod window;
mod wrong_day;

use crate::row::Row;

/// Returns all rows.
pub(crate) fn all() -> Vec<Row> {
    let rows = [
        shed::rows(),
        outage::rows(),
        overload::rows(),
        recovery::rows(),
        shared::rows(),
        beside::rows(),
        window::rows(),
        hang::rows(),
        wrong_day::rows(),
    ];
    rows.into_iter().flatten().collect()
}
