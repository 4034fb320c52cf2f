//! Takes the names of projects out of what an upstream says, where the project is the server's own. Pure.
//!
//! Google names the project, by number or id, in six forms: `projects/123`, `project_number:123`, `project:123`, "project
//! #123", `?project=123` in links, and the members `consumer` and `containerInfo` of ErrorInfo's metadata. Others write
//! `projectNumber` and `projectId`. Keys are overwritten elsewhere.

use serde_json::Value;

/// The text that replaces a project.
const HIDDEN: &str = "[hidden]";

/// The words after which a project stands, if it looks like one.
const BEFORE: [&str; 12] = [
    "projects/",
    "projects%2f",
    "project_number",
    "projectnumber",
    "project_id",
    "projectid",
    "project=",
    "project: ",
    "project:",
    "project#",
    "project(",
    "project ",
];

/// The members whose whole text is the project.
const MEMBERS: [&str; 5] = ["containerInfo", "project_number", "project_id", "projectNumber", "projectId"];

/// Hides the projects in all texts of a value. Returns whether there was one.
pub(super) fn in_value(value: &mut Value) -> bool {
    match value {
        Value::String(text) => match in_text(text) {
            Some(hidden) => {
                *text = hidden;
                true
            }
            None => false,
        },
        // All are looked at.
        Value::Array(elements) => elements.iter_mut().fold(false, |any, element| in_value(element) | any),
        Value::Object(members) => members.iter_mut().fold(false, |any, (name, member)| {
            let is_named = MEMBERS.contains(&name.as_str()) && (member.is_string() || member.is_number());
            if is_named {
                *member = HIDDEN.into();
            }
            is_named | in_value(member) | any
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Hides the projects in a text. `None`: there was none.
pub(super) fn in_text(text: &str) -> Option<String> {
    if !names_projects(text.as_bytes()) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let (mut hidden, mut done) = (String::new(), 0);
    for (at, _) in lower.match_indices("project") {
        let Some(before) = BEFORE.iter().find(|before| lower[at..].starts_with(**before)).filter(|_| at >= done) else {
            continue;
        };
        let mut start = at + before.len();
        start += lower[start..].bytes().take_while(|byte| b":=\"'`#( ".contains(byte)).count();
        // "projectIdentifier" is a word of its own.
        if start == at + before.len() && (before.ends_with("id") || before.ends_with("number")) {
            continue;
        }
        let name =
            lower[start..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let end = start + name.count();
        if is_project(&lower[start..end], before, &lower[..at]) {
            hidden.push_str(&text[done..start]);
            hidden.push_str(HIDDEN);
            done = end;
        }
    }
    (done > 0).then(|| hidden + &text[done..])
}

/// Returns whether the word stands in a text, found by its rarest letter.
fn names_projects(text: &[u8]) -> bool {
    let is_word = |at: usize| {
        let word = at.checked_sub("pro".len()).and_then(|start| text.get(start..start + "project".len()));
        word.is_some_and(|word| word.eq_ignore_ascii_case(b"project"))
    };
    memchr::memchr2_iter(b'j', b'J', text).any(is_word)
}

/// Returns whether a word names a project. After "project " stands an ordinary word, too: "your project has been denied",
/// "project(s)".
fn is_project(word: &str, before: &str, earlier: &str) -> bool {
    match before {
        _ if word.is_empty() => false,
        "project " | "project: " | "project#" | "project(" => {
            let has_sign = word.len() >= 6 && word.bytes().any(|byte| byte.is_ascii_digit() || byte == b'-');
            // Google's two sentences with an id, which may be one of letters alone.
            has_sign || ["used in ", "on resource "].iter().any(|sentence| earlier.ends_with(sentence))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn projects_are_hidden_in_all_of_googles_sentences() {
        for (text, expected) in [
            ("consumer: projects/000000000000", "consumer: projects/[hidden]"),
            ("for consumer 'project_number:000000000000'.", "for consumer 'project_number:[hidden]'."),
            (
                "has not been used in project 000000000000 before or it is disabled. Enable it by visiting \
                 https://console.developers.google.com/apis/api/x/overview?project=000000000000 then retry.",
                "has not been used in project [hidden] before or it is disabled. Enable it by visiting \
                 https://console.developers.google.com/apis/api/x/overview?project=[hidden] then retry.",
            ),
            ("Permission denied on resource project swift-core-12.", "Permission denied on resource project [hidden]."),
            ("on resource project example before", "on resource project [hidden] before"),
            (
                "'//aiplatform.googleapis.com/projects/example-project/locations/us-east4'",
                "'//aiplatform.googleapis.com/projects/[hidden]/locations/us-east4'",
            ),
            ("Project 'my-project-1' of é", "Project '[hidden]' of é"),
            ("Please enable billing on project #123456789012 by", "Please enable billing on project #[hidden] by"),
            ("project (123456789012), project(123456789012)", "project ([hidden]), project([hidden])"),
            (
                "Consumer 'project:example' and project: my-project-7",
                "Consumer 'project:[hidden]' and project: [hidden]",
            ),
            ("projectId=example projectNumber: 123456789012", "projectId=[hidden] projectNumber: [hidden]"),
        ] {
            assert_eq!(in_text(text).as_deref(), Some(expected));
        }
        for text in [
            "Your project has been denied access. Please contact support.",
            "this project may not use it",
            "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "Your project has exceeded its monthly spending cap",
            "project ",
            "projects/",
            "in your project: the model, in your project(s), projectIdentifier",
            "",
        ] {
            assert_eq!(in_text(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_number_of_a_project_survives(
            before in "[a-zé ]{0,9}",
            form in proptest::sample::select(vec!["projects/", "project_number:", "project=", "Project ", "PROJECTS%2F", "project_id: ", "project #", "project (", "project:", "projectNumber: "]),
            number in "[0-9]{6,12}",
            after in "[é.,/'& ]\\PC{0,9}",
        ) {
            let hidden = in_text(&format!("{before}{form}{number}{after}")).expect("a project");
            assert_eq!(hidden, format!("{before}{form}{HIDDEN}{after}"));
        }
    }

    #[test]
    fn details_name_no_project() {
        let mut error = json!({"error": {"code": 403, "details": [
            {"metadata": {"consumer": "projects/123", "containerInfo": "swift", "projectId": "example", "service": "s"}},
            {"violations": [{"quotaId": "RequestsPerDayPerProject"}]},
        ]}});
        assert!(in_value(&mut error));
        let expected = json!({"consumer": "projects/[hidden]", "containerInfo": "[hidden]", "projectId": "[hidden]", "service": "s"});
        assert_eq!(error["error"]["details"][0]["metadata"], expected);
        assert!(!in_value(&mut json!({"error": {"message": "no", "code": 1}})));
    }
}
