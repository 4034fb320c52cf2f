//! The models that the settings name: metrics know them by name from their first call on.

use toml::{Table, Value};

/// Returns each name of a model in `[fallback]`, `[limits]`, `[prices]` and `[[callers]]`. Beginnings with a `*` name none.
pub(crate) fn models(file: &Table) -> Vec<&str> {
    let table = |table: &'static str| file.get(table).and_then(Value::as_table);
    let mut names = Vec::new();
    let chains = table("fallback");
    let larger = chains.and_then(|chains| chains.get("larger")).and_then(Value::as_table);
    // A setting is no list, and so no chain.
    let is_chain = |(_, next): &(&String, &Value)| next.is_array();
    for (model, next) in [chains, larger].into_iter().flatten().flatten().filter(is_chain) {
        names.push(model.as_str());
        names.extend(next.as_array().into_iter().flatten().filter_map(Value::as_str));
    }
    names.extend(
        table("limits").into_iter().flatten().map(|(model, _)| model.as_str()).filter(|name| *name != "default"),
    );
    names.extend(table("prices").into_iter().flatten().map(|(model, _)| model.as_str()));
    let callers = file.get("callers").and_then(Value::as_array);
    let theirs = callers.into_iter().flatten().filter_map(|caller| caller.get("models")?.as_array()).flatten();
    names.extend(theirs.filter_map(Value::as_str));
    let without_tier = |name: &'_ str| name.split_once('@').map_or(name.len(), |(model, _)| model.len());
    names.iter_mut().for_each(|name| *name = &name[..without_tier(name)]);
    names.retain(|name| !name.is_empty() && !name.ends_with('*'));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_by_chains_limits_prices_and_callers() {
        let file: Table = "
[[callers]]
models = [\"a-1\", \"b*\"]
[fallback]
\"c-1@flex\" = [\"c-2@priority\", \"c-3\"]
sticky = \"1s\"
[fallback.larger]
\"d-1\" = [\"d-2\"]
[limits.default]
rpm = 1
[limits.\"e-1\"]
rpm = 1
[prices]
\"f-1\" = { input = 1, output = 2 }
\"f-2*\" = { input = 1, output = 2 }
"
        .parse()
        .unwrap();
        let mut names = models(&file);
        names.sort_unstable();
        assert_eq!(names, ["a-1", "c-1", "c-2", "c-3", "d-1", "d-2", "e-1", "f-1"]);
        assert!(models(&Table::new()).is_empty());
    }
}
