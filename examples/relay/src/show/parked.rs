//! Everything that is parked, as an operator may lift it.

use serde::Serialize;
use tower_gemini::key_pool::Part;

use crate::show::{
    model::ModelView,
    view::{KeyView, by_name},
};

/// A refusal that is believed of a project, as an operator may lift it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct ParkedView {
    pub(crate) project: String,
    /// The model; none if all that costs money rests.
    pub(crate) model: Option<String>,
    #[serde(serialize_with = "by_name")]
    pub(crate) part: Part,
    /// The kind of the refusal.
    pub(crate) reason: String,
    /// The time until it ends by itself, where somebody knows.
    pub(crate) back_in_s: Option<f64>,
    pub(crate) asked_again_in_s: f64,
}

impl ParkedView {
    /// Returns everything that is parked: project by project in the order of the keys, and in each what lasts longest
    /// first. The limiter and the pool have often seen the same refusal, which is said once.
    pub(crate) fn all(models: &[ModelView], keys: &[KeyView]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut add = |park: Self| {
            let same = |known: &&mut Self| {
                (&known.project, &known.model, known.part) == (&park.project, &park.model, park.part)
            };
            match all.iter_mut().find(same) {
                Some(known) => {
                    known.back_in_s = known.back_in_s.zip(park.back_in_s).map(|(one, other)| one.max(other));
                    known.asked_again_in_s = known.asked_again_in_s.max(park.asked_again_in_s);
                }
                None => all.push(park),
            }
        };
        for key in keys {
            if let Some(look) = key.back_in_s.filter(|_| key.project_rests) {
                add(Self {
                    project: key.project.clone(),
                    model: None,
                    part: Part::Spending,
                    reason: key.reason.clone().unwrap_or_default(),
                    back_in_s: None,
                    asked_again_in_s: look,
                });
            }
            for out in &key.models {
                add(Self {
                    project: key.project.clone(),
                    model: Some(out.model.clone()),
                    part: out.part,
                    reason: out.reason.to_owned(),
                    back_in_s: out.back_in_s,
                    asked_again_in_s: out.asked_again_in_s,
                });
            }
        }
        for (model, limit) in models.iter().flat_map(|model| model.limits.iter().map(move |limit| (model, limit))) {
            for park in &limit.parked {
                // The pool knows that a model is closed, and the limiter only that it is refused.
                let closed = keys.iter().filter(|key| key.project == limit.project).flat_map(|key| &key.models);
                let mut closed = closed.filter(|out| out.part == Part::Closed && out.model == model.model);
                // As it knows that a whole project rests.
                let rests = |key: &&KeyView| key.project == limit.project && key.project_rests;
                let rests = keys.iter().find(rests).is_some_and(|key| key.reason.as_deref() == Some(park.reason));
                if rests || park.part == Part::Model && closed.next().is_some() {
                    continue;
                }
                add(Self {
                    project: limit.project.clone(),
                    model: Some(model.model.clone()),
                    part: park.part,
                    reason: park.reason.to_owned(),
                    back_in_s: Some(park.back_in_s),
                    asked_again_in_s: park.asked_again_in_s,
                });
            }
        }
        let ends = |park: &Self| park.back_in_s.unwrap_or(f64::INFINITY);
        all.sort_by(|one, other| {
            let places = [one, other].map(|park| place(keys, &park.project));
            places[0].cmp(&places[1]).then(ends(other).total_cmp(&ends(one))).then_with(|| one.model.cmp(&other.model))
        });
        all
    }
}

/// Returns the place of a project: as the keys are listed, and then by name.
pub(crate) fn place<'a>(keys: &[KeyView], project: &'a str) -> (usize, &'a str) {
    (keys.iter().position(|key| key.project == project).unwrap_or(keys.len()), project)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::view::tests::{key, out, parked};

    #[test]
    fn what_is_parked_is_said_once_and_in_the_order_of_the_keys() {
        let mut model = ModelView::named("flash".to_owned());
        model.limits = vec![
            parked("p0", Part::Model, 9.0),
            parked("p1", Part::Model, 90_000.0),
            parked("p7", Part::Model, 40_000.0),
            parked("p3", Part::Model, 9.0),
            parked("p3", Part::Grounded, 90.0),
        ];
        let mut spent = key("p1", Vec::new());
        (spent.project_rests, spent.back_in_s, spent.reason) = (true, Some(3_600.0), Some("quota_day".to_owned()));
        let closed = key("p3", vec![out(Part::Closed)]);
        let all = ParkedView::all(&[model], &[key("p7", vec![out(Part::Model)]), spent, closed]);
        let said: Vec<_> =
            all.iter().map(|park| (&*park.project, park.model.as_deref(), park.part, park.back_in_s)).collect();
        assert_eq!(
            said,
            [
                ("p7", Some("flash"), Part::Model, Some(40_000.0)),
                ("p1", None, Part::Spending, None),
                ("p3", Some("flash"), Part::Closed, None),
                ("p3", Some("flash"), Part::Grounded, Some(90.0)),
                ("p0", Some("flash"), Part::Model, Some(9.0)),
            ]
        );
    }
}
