//! `operator_token`: what operators bring to their own listener.

use std::net::SocketAddr;

use crate::config::{
    callers::{Callers, Token},
    toml::{Section, Value},
    values::secret,
};

/// The fewest characters of the token: 16 at random are more than anybody can try.
const SHORTEST: usize = 16;

/// The settings of the operators' access.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct OperatorAccess {
    /// The token without which nothing but health is served to operators. `None`: none is wanted.
    pub(crate) token: Option<Token>,
}

impl OperatorAccess {
    /// Reads `operator_token`. It must be there if `listen`, the address of the operators' listener, can be reached from
    /// outside. It is neither a token of `callers` nor one of the relay's own `keys`.
    pub(crate) fn read<'k>(
        file: &mut Section<'_>,
        listen: Option<SocketAddr>,
        callers: &Callers,
        keys: impl Iterator<Item = &'k str>,
    ) -> Self {
        let is_given = file.has("operator_token");
        let token = file.get_placed("operator_token", token);
        let is_public = |listen: &SocketAddr| !listen.ip().to_canonical().is_loopback();
        if let Some(listen) = listen.filter(|listen| !is_given && is_public(listen)) {
            file.mistake(
                file.place(),
                format!(
                    "operator_listen is {listen}, which others can reach, and there is no operator_token: add a line \
                     operator_token = \"env:RELAY_OPERATOR_TOKEN\", or listen on 127.0.0.1"
                ),
            );
        }
        if let Some((token, place)) = &token {
            let of = match () {
                () if keys.map(Token::of).any(|key| key == *token) => Some("a key of [[keys]]"),
                () if callers.of(token).is_some() => Some("the token of a caller"),
                () => None,
            };
            if let Some(of) = of {
                file.mistake(place.clone(), format!("operator_token: is also {of}; give operators one of their own"));
            }
        }
        Self { token: token.map(|(token, _)| token) }
    }
}

fn token(value: &Value<'_>) -> Result<Token, String> {
    const RIGHT: &str = "the token itself, or \"env:\" and the name of a variable that holds it";
    let token = secret("token", value.text(RIGHT)?)?;
    match token.chars().count() {
        short if short < SHORTEST => Err(format!(
            "the token has {short} characters, and could be guessed; it is {SHORTEST} or more at random, as of \
             `openssl rand -hex 16`"
        )),
        _ => Ok(Token::of(token)),
    }
}
