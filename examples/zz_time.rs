use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use std::time::Instant;
use tower::{Layer, Service, service_fn};
use tower_gemini::{
    TokenPrecheckLayer,
    token_precheck::{AskUpstream, Count, CountTokens, ModelTable, TextCounter},
};
#[derive(Debug)]
struct B;
struct C(Count);
impl CountTokens for B {
    fn counter(&self, _: &str) -> Box<dyn TextCounter> {
        Box::new(C(Count::default()))
    }
}
impl TextCounter for C {
    fn push(&mut self, t: &str) {
        self.0 += Count::by_length(t);
    }
    fn count(&self) -> Count {
        self.0
    }
}
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let m = 32 << 20;
    let bodies = [
        ("small 1k", format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, "word ".repeat(200))),
        ("text 32M", format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, "word ".repeat(m / 5))),
        ("tiny parts", format!(r#"{{"contents":[{{"parts":[{}{{}}]}}]}}"#, "{},".repeat(m / 3))),
        ("tiny texts", format!(r#"{{"contents":[{{"parts":[{}""]}}]}}"#, "\"\",".repeat(m / 3))),
        (
            "numbers in args",
            format!(
                r#"{{"contents":[{{"parts":[{{"functionCall":{{"name":"f","args":{{"a":[{}1]}}}}}}]}}]}}"#,
                "1,".repeat(m / 2)
            ),
        ),
        ("ignored", format!(r#"{{"contents":[{{"parts":[{{"text":"x"}}]}}],"x":[{}1]}}"#, "1,".repeat(m / 2))),
        ("escapes", format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, "\\n".repeat(m / 2))),
        (
            "blob",
            format!(
                r#"{{"contents":[{{"parts":[{{"text":"x"}},{{"inlineData":{{"mimeType":"image/png","data":"{}"}}}}]}}]}}"#,
                "A".repeat(m)
            ),
        ),
        (
            "small blobs",
            format!(
                r#"{{"contents":[{{"parts":[{}{{}}]}}]}}"#,
                r#"{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA="}},"#
                    .repeat(m / 100)
            ),
        ),
        ("nested", format!(r#"{{"x":{}{}}}"#, "[".repeat(m / 2), "]".repeat(m / 2))),
        ("big number", format!(r#"{{"contents":[{{"parts":[{{"text":"x"}}]}}],"max_tokens":{}}}"#, "9".repeat(m))),
    ];
    for bare in [true, false] {
        for (name, body) in &bodies {
            let mut l = TokenPrecheckLayer::new(ModelTable::new()).ask_upstream(AskUpstream::Never);
            if bare {
                l = l.counter(B);
            }
            let mut s = l.layer(service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
            }));
            let body = Bytes::from(body.clone());
            let n = if body.len() < 10000 { 2000 } else { 2 };
            let mut t = 0.0;
            for _ in 0..n {
                let r = Request::post("/v1beta/models/gemini-2.5-pro:generateContent")
                    .header("content-type", "application/json")
                    .body(Full::from(body.clone()))
                    .unwrap();
                std::future::poll_fn(|cx| s.poll_ready(cx)).await.unwrap();
                let a = Instant::now();
                let f = s.call(r);
                t += a.elapsed().as_secs_f64();
                drop(f);
            }
            println!("bare {bare} {name}: {:.3} ms in call", t * 1e3 / n as f64);
        }
    }
}
