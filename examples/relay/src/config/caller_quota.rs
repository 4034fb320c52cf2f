//! The limits of a caller of `[[callers]]`: its calls, its tokens and its money.

use tower_gemini::{
    caller_limit::{CallerDimension, CallerQuota, PastLimit},
    prices::{Money, Prices},
};

use crate::config::{
    caller_models::Models,
    diagnostics::Place,
    toml::{Section, Value},
    values::{money, one_of},
};

/// Returns whether there is any limit.
pub(crate) fn is_limited(quota: &CallerQuota) -> bool {
    CallerDimension::ALL.into_iter().any(|dimension| quota.get(dimension).is_some())
}

/// Reads the limits of a caller that may use `models`. Money is counted by `prices`.
pub(crate) fn read(section: &mut Section<'_>, models: Option<&Models>, prices: Option<&Prices>) -> CallerQuota {
    type Set<T> = fn(CallerQuota, T) -> CallerQuota;
    let counts: [(_, Set<u64>); 4] = [
        ("rpm", CallerQuota::requests_per_minute),
        ("tpm", CallerQuota::input_tokens_per_minute),
        ("rpd", CallerQuota::requests_per_day),
        ("tpd", CallerQuota::tokens_per_day),
    ];
    let money: [(_, Set<Money>); 2] =
        [("money_per_day", CallerQuota::money_per_day), ("money_per_month", CallerQuota::money_per_month)];
    let mut quota = CallerQuota::new();
    let mut set_to: Vec<(&str, u64, Place)> = Vec::new();
    for (name, set) in counts {
        if let Some((limit, place)) = section.get_placed(name, limit) {
            quota = set(quota, limit);
            set_to.push((name, limit, place));
        }
    }
    for (minute, day) in [("rpm", "rpd"), ("tpm", "tpd")] {
        let [minute, day] = [minute, day].map(|name| set_to.iter().find(|(set, ..)| *set == name));
        if let (Some((name, limit, place)), Some((of_day, most, _))) = (minute, day)
            && limit > most
        {
            let remark = format!("{name} has no effect: it is {limit}, more than {of_day}, which is {most}");
            section.remark_at(place.clone(), remark);
        }
    }
    let mut of_day: Option<(Money, Place)> = None;
    for (name, set) in money {
        let Some((limit, place)) = section.get_placed(name, spending) else { continue };
        quota = set(quota, limit);
        if let Some((of_day, place)) = of_day.replace((limit, place.clone())).filter(|(of_day, _)| *of_day > limit) {
            let remark =
                format!("money_per_day has no effect: it is {of_day}, more than money_per_month, which is {limit}");
            section.remark_at(place, remark);
        }
        let unpriced = |prices: &Prices| models?.exact().find(|model| prices.price(model).is_none());
        let mistake = match prices {
            None => "needs [prices], such as \"gemini-2.5-flash\" = { input = 0.3, output = 2.5 }".to_owned(),
            Some(prices) => match unpriced(prices) {
                Some(model) => format!("the caller may use {model}, of which [prices] has no price"),
                None => continue,
            },
        };
        section.mistake(place, format!("{name}: {mistake}"));
    }
    let past = section.get_placed("past", |value| {
        one_of(value, &[("refuse", PastLimit::Refuse), ("lowest", PastLimit::LowestPriority)])
    });
    if let Some((_, place)) = past.as_ref().filter(|_| !is_limited(&quota)) {
        section.mistake(place.clone(), "past: there is no limit to go past; set rpm, tpm, rpd, tpd or money_per_day");
    }
    past.map_or(quota.clone(), |(past, _)| quota.past(past))
}

fn limit(value: &Value<'_>) -> Result<u64, String> {
    const RIGHT: &str = "a whole number from 1, like 30";
    match value.integer(RIGHT)? {
        0 => Err(format!("is 0, and so no call would ever go; it is {RIGHT}, or take the line out")),
        number => u64::try_from(number).map_err(|_| format!("is {number}; it is {RIGHT}")),
    }
}

/// Reads an amount that may be spent.
fn spending(value: &Value<'_>) -> Result<Money, String> {
    match money(value)? {
        Money::ZERO => Err("is 0, and so no call would ever go; it is dollars, like 2.5".to_owned()),
        money => Ok(money),
    }
}
