//! Pages of lists.

use super::errors::ApiError;

/// The part of a list that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The largest number of entries.
    pub(crate) size: usize,
    /// The index of the first entry.
    pub(crate) from: usize,
}

impl PageRequest {
    /// Parses `pageSize` and `pageToken`. A size of 0 or none is `default_size`; larger ones are cut to `largest`.
    pub(crate) fn of(query: Option<&str>, default_size: usize, largest: usize) -> Result<Self, ApiError> {
        let parameter = |name: &str| {
            let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
        };
        let size = match parameter("pageSize").map(str::parse::<usize>) {
            None | Some(Ok(0)) => default_size,
            Some(Ok(size)) => size.min(largest),
            Some(Err(_)) => return Err(ApiError::invalid_argument("Invalid value at 'page_size' (TYPE_INT32)")),
        };
        let from = match parameter("pageToken").map(|token| token.strip_prefix("from-").map(str::parse::<usize>)) {
            None => 0,
            Some(Some(Ok(from))) => from,
            Some(_) => return Err(ApiError::invalid_argument("Page token is not valid.")),
        };
        Ok(Self { size, from })
    }
}

/// Writes the `nextPageToken` of a page that is followed by the entry `from`.
pub(crate) fn page_token(from: usize) -> String {
    format!("from-{from}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_paged() {
        let list = |query| PageRequest::of(query, 50, 1_000).ok().map(|page| (page.size, page.from));
        assert_eq!(list(None), Some((50, 0)));
        assert_eq!(list(Some("pageSize=5000&pageToken=from-7")), Some((1000, 7)));
        assert_eq!(list(Some("pageSize=two")), None);
        assert_eq!(list(Some("pageToken=x")), None);
    }
}
