//! A thing that belongs to a project is asked of that project: every collection and every member of a body that can name such a
//! thing, over an upstream with two projects that refuses what the other one has made.

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, KeyPoolLayer,
    context::{RetryAdvice, Tried},
    key_pool::{ApiKey, Key, KeyPool},
};

use crate::support::{AnyBody, Asked, GENERATE, HELLO, Upstream, json, post, read, sse};

/// The number of times that a thing is used.
const USES: usize = 12;

/// The header in which a request of these tests says which thing it is about.
const THING: &str = "x-thing";

/// A request: the method, the URI, and the body. `{id}` is the id of the thing.
type Sent = (&'static str, &'static str, &'static str);

/// Something that belongs to the project that has made it.
struct Row {
    what: &'static str,
    /// The calls that make it, and their answers. An answer may begin with `upload: ` and a URL, or be a stream; `{pad}`
    /// stands for many events.
    made: &'static [(Sent, &'static str)],
    uses: &'static [Sent],
}

const INTERACTION: &str = "/v1beta/interactions";
const BATCH: &str = "/v1beta/models/gemini-2.5-flash:batchGenerateContent";
const EMBEDDINGS: &str = "/v1/models/gemini-embedding-001:asyncBatchEmbedContent";
const VEO: &str = "/v1beta/models/veo-3.1:predictLongRunning";
const VERTEX: &str = "/v1beta1/projects/p/locations/global/interactions";

const ROWS: &[Row] = &[
    Row {
        what: "an upload under way",
        made: &[(
            ("POST", "/upload/v1beta/files", r#"{"file":{"displayName":"a"}}"#),
            "upload: https://h/upload/v1beta/files?upload_id={id}&upload_protocol=resumable",
        )],
        uses: &[
            ("POST", "/upload/v1beta/files?upload_id={id}&upload_protocol=resumable", "bytes"),
            ("PUT", "/relay/upload/v1beta/files?upload_protocol=resumable&upload_id={id}", "bytes"),
        ],
    },
    Row {
        what: "a file",
        made: &[
            (
                ("POST", "/upload/v1beta/files", "{}"),
                "upload: https://h/upload/v1beta/files?upload_id=u{id}&upload_protocol=resumable",
            ),
            (
                ("POST", "/upload/v1beta/files?upload_id=u{id}&upload_protocol=resumable", "bytes"),
                r#"{"file":{"name":"files/{id}","uri":"https://generativelanguage.googleapis.com/v1beta/files/{id}"}}"#,
            ),
        ],
        uses: &[
            ("GET", "/v1beta/files/{id}", ""),
            ("GET", "/v1/files/{id}:download?alt=media", ""),
            ("GET", "/download/v1beta/files/{id}:download?alt=media", ""),
            ("GET", "/v1/files/{id}%3Adownload?alt=media", ""),
            (
                "POST",
                GENERATE,
                r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/files/{id}"}}]}]}"#,
            ),
            ("POST", GENERATE, r#"{"contents":[{"parts":[{"file_data":{"file_uri":"files/{id}"}}]}]}"#),
            (
                "POST",
                GENERATE,
                r#"{"contents":[{"parts":[{"file_data":{"file_uri":"http:\/\/relay:8080\/v1\/files\/{id}:download?alt=media"}}]}]}"#,
            ),
            (
                "POST",
                "/v1beta/models/m:countTokens",
                r#"{"generateContentRequest":{"contents":[{"parts":[{"fileData":{"fileUri":"files/{id}"}}]}]}}"#,
            ),
            ("POST", BATCH, r#"{"batch":{"displayName":"j","inputConfig":{"fileName":"files/{id}"}}}"#),
            ("POST", BATCH, r#"{"batch":{"display_name":"j","input_config":{"file_name":"files/{id}"}}}"#),
            ("POST", EMBEDDINGS, r#"{"batch":{"inputConfig":{"fileName":"https://h/v1/files/{id}"}}}"#),
            ("POST", EMBEDDINGS, r#"{"batch":{"input_config":{"file_name":"files/{id}"}}}"#),
            (
                "POST",
                BATCH,
                r#"{"batch":{"inputConfig":{"requests":{"requests":[{"request":{"contents":[{"parts":[{"fileData":{"fileUri":"files/{id}"}}]}]}}]}}}}"#,
            ),
            (
                "POST",
                INTERACTION,
                r#"{"model":"m","input":[{"type":"text","text":"x"},{"type":"video","uri":"https://generativelanguage.googleapis.com/v1beta/files/{id}"}]}"#,
            ),
            ("POST", VERTEX, r#"{"model":"m","input":[{"type":"document","uri":"files/{id}"}]}"#),
            (
                "POST",
                VEO,
                r#"{"instances":[{"prompt":"go on","video":{"uri":"https://generativelanguage.googleapis.com/v1beta/files/{id}:download?alt=media"}}]}"#,
            ),
            ("POST", "/v1beta/fileSearchStores/elsewhere:importFile", r#"{"fileName":"files/{id}"}"#),
            ("POST", "/v1beta/fileSearchStores/elsewhere:importFile", r#"{"file_name":"files/{id}"}"#),
            ("POST", "/v1beta/openai/batches", r#"{"input_file_id":"{id}","endpoint":"/v1/chat/completions"}"#),
            ("POST", "/v1beta/openai/batches", r#"{"input_file_id":"files/{id}"}"#),
            (
                "POST",
                "/v1beta/openai/chat/completions",
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"{id}"}}]}]}"#,
            ),
            ("POST", "/v1beta/dynamic/x:generateContent", r#"{"a_member_that_is_new":["files/{id}"]}"#),
        ],
    },
    Row {
        what: "a registered file",
        made: &[(
            ("POST", "/v1beta/files:register", r#"{"uris":["gs://bucket/one","gs://bucket/two"]}"#),
            r#"{"files":[{"name":"files/other-{id}","uri":"https://g/v1beta/files/other-{id}"},{"name":"files/{id}","uri":"https://g/v1beta/files/{id}"}]}"#,
        )],
        uses: &[
            ("GET", "/v1beta/files/{id}", ""),
            ("GET", "/v1beta/files/other-{id}", ""),
            ("POST", GENERATE, r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://g/v1beta/files/{id}"}}]}]}"#),
        ],
    },
    Row {
        what: "a registered file that keeps its address",
        made: &[(
            ("POST", "/v1/files:register", r#"{"uris":["gs://bucket/{id}.pdf"]}"#),
            r#"{"files":[{"name":"files/{id}","uri":"gs://bucket/{id}.pdf","source":"REGISTERED"}]}"#,
        )],
        uses: &[
            ("GET", "/v1/files/{id}", ""),
            ("POST", GENERATE, r#"{"contents":[{"parts":[{"fileData":{"fileUri":"gs://bucket/{id}.pdf"}}]}]}"#),
            ("POST", INTERACTION, r#"{"model":"m","input":[{"type":"document","uri":"gs://bucket/{id}.pdf"}]}"#),
        ],
    },
    Row {
        what: "a cached content",
        made: &[(
            ("POST", "/v1beta/cachedContents", r#"{"model":"models/m"}"#),
            r#"{"name":"cachedContents/{id}","model":"models/m"}"#,
        )],
        uses: &[
            ("GET", "/v1beta/cachedContents/{id}", ""),
            ("PATCH", "/v1/cachedContents/{id}?updateMask=ttl", r#"{"ttl":"3s"}"#),
            ("POST", GENERATE, r#"{"cachedContent":"cachedContents/{id}"}"#),
            ("POST", GENERATE, r#"{"cached_content":"cachedContents/{id}"}"#),
            ("POST", GENERATE, r#"{"cachedContent" : "projects/p/locations/l/cachedContents/{id}"}"#),
            (
                "POST",
                GENERATE,
                r#"{"cachedContent":"https://generativelanguage.googleapis.com/v1beta/cachedContents/{id}"}"#,
            ),
            ("POST", INTERACTION, r#"{"model":"m","input":"x","cached_content":"cachedContents/{id}"}"#),
            (
                "POST",
                "/v1beta/models/m:countTokens",
                r#"{"generateContentRequest":{"cachedContent":"cachedContents/{id}"}}"#,
            ),
            (
                "POST",
                "/v1beta/openai/chat/completions",
                r#"{"model":"m","extra_body":{"google":{"cached_content":"cachedContents/{id}"}}}"#,
            ),
        ],
    },
    Row {
        what: "a tuned model",
        made: &[(
            ("POST", "/v1beta/tunedModels", "{}"),
            r#"{"name":"tunedModels/{id}/operations/o","metadata":{"tunedModel":"tunedModels/{id}"}}"#,
        )],
        uses: &[
            ("GET", "/v1beta/tunedModels/{id}", ""),
            ("POST", "/v1beta/tunedModels/{id}:generateContent", "{}"),
            ("POST", "/v1/tunedModels/{id}:streamGenerateContent?alt=sse", "{}"),
            ("GET", "/v1/tunedModels/{id}/operations/o", ""),
            ("POST", "/v1alpha/tunedModels/{id}:transferOwnership", "{}"),
            ("POST", "/v1beta/openai/chat/completions", r#"{"model":"tunedModels/{id}"}"#),
        ],
    },
    Row {
        what: "a batch and its results",
        made: &[
            (
                ("POST", BATCH, r#"{"batch":{"displayName":"j"}}"#),
                r#"{"name":"batches/{id}","metadata":{"name":"batches/{id}"}}"#,
            ),
            (
                ("GET", "/v1beta/batches/{id}", ""),
                r#"{"name":"batches/{id}","done":true,"metadata":{"output":{"responsesFile":"files/r{id}"}},"response":{"responsesFile":"files/s{id}"},"dest":{"fileName":"files/d{id}"}}"#,
            ),
        ],
        uses: &[
            ("GET", "/v1/batches/{id}", ""),
            ("POST", "/v1beta/batches/{id}:cancel", ""),
            ("PATCH", "/v1beta/batches/{id}:updateGenerateContentBatch", "{}"),
            ("GET", "/v1beta/files/r{id}", ""),
            ("GET", "/download/v1beta/files/s{id}:download?alt=media", ""),
            ("POST", BATCH, r#"{"batch":{"inputConfig":{"fileName":"files/d{id}"}}}"#),
        ],
    },
    Row {
        what: "a batch of embeddings",
        made: &[(("POST", EMBEDDINGS, r#"{"batch":{}}"#), r#"{"name":"batches/{id}"}"#)],
        uses: &[
            ("GET", "/v1beta/batches/{id}", ""),
            ("DELETE", "/v1beta/batches/{id}", ""),
            // Nobody has asked for the batch.
            ("GET", "/download/v1beta/files/batch-{id}:download?alt=media", ""),
            ("POST", BATCH, r#"{"batch":{"inputConfig":{"fileName":"files/batch-{id}"}}}"#),
        ],
    },
    Row {
        what: "an operation and its video",
        made: &[
            (("POST", VEO, r#"{"instances":[{"prompt":"x"}]}"#), r#"{"name":"models/veo-3.1/operations/{id}"}"#),
            (
                ("GET", "/v1beta/models/veo-3.1/operations/{id}", ""),
                r#"{"done":true,"response":{"generateVideoResponse":{"generatedSamples":[{"video":{"uri":"https://generativelanguage.googleapis.com/v1beta/files/{id}v:download?alt=media"}}]}}}"#,
            ),
        ],
        uses: &[
            ("GET", "/v1beta/models/veo-3.1/operations/{id}", ""),
            ("GET", "/v1/operations/{id}", ""),
            ("POST", "/v1/operations/{id}:cancel", ""),
            ("GET", "/v1beta/files/{id}v:download?alt=media", ""),
            (
                "POST",
                VEO,
                r#"{"instances":[{"video":{"uri":"https://generativelanguage.googleapis.com/v1beta/files/{id}v:download?alt=media"}}]}"#,
            ),
            (
                "POST",
                "/v1/projects/p/locations/l/publishers/google/models/veo-3.1:fetchPredictOperation",
                r#"{"operationName":"projects/p/locations/l/publishers/google/models/veo-3.1/operations/{id}"}"#,
            ),
        ],
    },
    Row {
        what: "a generated file",
        made: &[
            (("POST", VEO, r#"{"instances":[]}"#), r#"{"name":"models/veo-3.1/operations/o{id}"}"#),
            (
                ("GET", "/v1beta/models/veo-3.1/operations/o{id}", ""),
                r#"{"done":true,"response":{"name":"generatedFiles/{id}"}}"#,
            ),
        ],
        uses: &[
            ("GET", "/v1beta/generatedFiles/{id}:download?alt=media", ""),
            ("GET", "/v1beta/generatedFiles/{id}/operations/o", ""),
        ],
    },
    Row {
        what: "a file search store",
        made: &[(("POST", "/v1beta/fileSearchStores", "{}"), r#"{"name":"fileSearchStores/{id}"}"#)],
        uses: &[
            ("GET", "/v1/fileSearchStores/{id}", ""),
            ("GET", "/v1beta/fileSearchStores/{id}/documents/d", ""),
            ("POST", "/v1/fileSearchStores/{id}:importFile", r#"{"fileName":"files/elsewhere"}"#),
            ("POST", "/upload/v1/fileSearchStores/{id}:uploadToFileSearchStore", "bytes"),
            ("GET", "/v1beta/fileSearchStores/{id}/upload/operations/o", ""),
            ("POST", GENERATE, r#"{"tools":[{"fileSearch":{"fileSearchStoreNames":["fileSearchStores/{id}"]}}]}"#),
            (
                "POST",
                GENERATE,
                r#"{"tools":[{"file_search":{"file_search_store_names":["fileSearchStores/elsewhere", "fileSearchStores/{id}"]}}]}"#,
            ),
            (
                "POST",
                INTERACTION,
                r#"{"model":"m","tools":[{"type":"file_search","file_search_store_names":["fileSearchStores/{id}"]}]}"#,
            ),
        ],
    },
    Row {
        what: "a corpus",
        made: &[(("POST", "/v1beta/corpora", "{}"), r#"{"name":"corpora/{id}"}"#)],
        uses: &[
            ("GET", "/v1beta/corpora/{id}", ""),
            ("POST", "/v1beta/corpora/{id}:query", r#"{"query":"x"}"#),
            ("POST", "/v1beta/models/aqa:generateAnswer", r#"{"semanticRetriever":{"source":"corpora/{id}"}}"#),
        ],
    },
    Row {
        what: "a RAG store",
        made: &[(("POST", "/v1beta/ragStores", "{}"), r#"{"name":"ragStores/{id}"}"#)],
        uses: &[
            ("GET", "/v1/ragStores/{id}/operations/o", ""),
            ("POST", GENERATE, r#"{"tools":[{"retrieval":{"rag_store":"ragStores/{id}"}}]}"#),
        ],
    },
    Row {
        what: "an interaction",
        made: &[(
            ("POST", INTERACTION, r#"{"model":"m","input":"x"}"#),
            r#"{"id":"v1_{id}","object":"interaction","status":"completed"}"#,
        )],
        uses: &[
            ("GET", "/v1/interactions/v1_{id}?stream=true&last_event_id=e", ""),
            ("DELETE", "/v1beta/interactions/v1_{id}", ""),
            ("POST", "/v1beta/interactions/v1_{id}:cancel", ""),
            ("POST", "/v1/interactions/v1_{id}/cancel", ""),
            ("POST", INTERACTION, r#"{"model":"m","previous_interaction_id":"v1_{id}","input":"y"}"#),
            ("POST", INTERACTION, r#"{"model":"m","previousInteractionId" : "v1_{id}"}"#),
            ("POST", VERTEX, r#"{"model":"m","previous_interaction_id":"interactions/v1_{id}"}"#),
        ],
    },
    Row {
        what: "an interaction that streams, and its environment",
        made: &[(
            ("POST", "/v1/interactions", r#"{"agent":"mine","stream":true,"input":"x"}"#),
            "event: interaction.created\ndata: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1_{id}\"}}\n\nevent: step.delta\ndata: {\"event_type\":\"step.delta\",\"delta\":{\"text\":\"hi\"}}\n\nevent: interaction.completed\ndata: {\"event_type\":\"interaction.completed\",\"interaction\":{\"id\":\"v1_{id}\",\"environment_id\":\"env_{id}\"}}\n\n",
        )],
        uses: &[
            ("GET", "/v1beta/interactions/v1_{id}", ""),
            ("POST", INTERACTION, r#"{"model":"m","previous_interaction_id":"v1_{id}"}"#),
            ("POST", INTERACTION, r#"{"agent":"any","environment":"env_{id}"}"#),
            ("POST", INTERACTION, r#"{"agent":"any","environment_id":"env_{id}"}"#),
        ],
    },
    Row {
        what: "an interaction of Vertex AI that streams",
        made: &[(
            ("POST", "/v1beta1/projects/p/locations/global/interactions:createStream", r#"{"model":"m"}"#),
            "data: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1_{id}\"}}\n\ndata: {\"event_type\":\"interaction.completed\"}\n\n",
        )],
        uses: &[
            ("GET", "/v1beta1/projects/p/locations/global/interactions/v1_{id}", ""),
            ("POST", VERTEX, r#"{"previousInteractionId":"v1_{id}"}"#),
        ],
    },
    Row {
        what: "an interaction of Vertex AI by its other path",
        made: &[(("POST", "/v1/projects/p/locations/l/interactionsHttp", r#"{"model":"m"}"#), r#"{"id":"v1_{id}"}"#)],
        uses: &[
            ("GET", "/v1/projects/p/locations/l/interactions/v1_{id}", ""),
            ("GET", "/v1/projects/p/locations/l/interactionsHttp/v1_{id}", ""),
            ("POST", "/v1beta1/projects/p/locations/l/interactionsHttp/v1_{id}/cancel", ""),
            ("POST", VERTEX, r#"{"previousInteractionId":"v1_{id}"}"#),
        ],
    },
    Row {
        what: "an agent",
        made: &[(
            ("POST", "/v1beta/agents", r#"{"id":"{id}","base_agent":"deep-research"}"#),
            r#"{"id":"{id}","base_agent":"deep-research"}"#,
        )],
        uses: &[
            ("GET", "/v1/agents/{id}", ""),
            ("POST", INTERACTION, r#"{"agent":"{id}","input":"x"}"#),
            ("POST", INTERACTION, r#"{"agent":"agents/{id}","input":"x"}"#),
            ("POST", INTERACTION, r#"{"agent":"https://generativelanguage.googleapis.com/v1beta/agents/{id}"}"#),
            ("POST", "/v1beta/triggers", r#"{"agent":"{id}","schedule":"* * * * *"}"#),
        ],
    },
    Row {
        what: "an environment",
        made: &[(("POST", "/v1beta/environments:create", "{}"), r#"{"id":"{id}","object":"environment"}"#)],
        uses: &[
            ("GET", "/v1beta/environments/{id}", ""),
            ("GET", "/v1beta/environments/{id}/files/a/b.txt", ""),
            ("PUT", "/upload/v1beta/environments/{id}/files/files/x.txt", "bytes"),
            ("POST", INTERACTION, r#"{"agent":"any","environment":"{id}"}"#),
            ("POST", INTERACTION, r#"{"agent":"any","environment":"environments/{id}"}"#),
            ("POST", INTERACTION, r#"{"agent":"any","input":[{"uri":"environments/{id}/files/a/b.txt"}]}"#),
        ],
    },
    Row {
        what: "a credential",
        made: &[(("POST", "/v1beta/credentials", "{}"), r#"{"name":"credentials/{id}"}"#)],
        uses: &[
            ("DELETE", "/v1/credentials/{id}", ""),
            ("POST", "/v1beta/environments", r#"{"credential":"credentials/{id}"}"#),
            ("POST", "/v1beta/environments", r#"{"credential_id":"{id}"}"#),
        ],
    },
    Row {
        what: "a trigger",
        made: &[
            (("POST", "/v1/triggers", "{}"), r#"{"id":"{id}","object":"trigger"}"#),
            (("POST", "/v1/triggers/{id}/executions", "{}"), r#"{"id":"e{id}","interaction_id":"v1_{id}"}"#),
        ],
        uses: &[
            ("GET", "/v1/triggers/{id}", ""),
            ("GET", "/v1beta/interactions/v1_{id}", ""),
            ("POST", "/v1/triggers/{id}/executions", "{}"),
            ("PATCH", "/v1beta/triggers/{id}", "{}"),
        ],
    },
    Row {
        what: "a voice",
        made: &[(("POST", "/v1beta/voices", "{}"), r#"{"name":"voices/{id}"}"#)],
        uses: &[
            ("DELETE", "/v1/voices/{id}", ""),
            (
                "POST",
                "/v1beta/models/gemini-3.1-flash-tts:generateContent",
                r#"{"generationConfig":{"speechConfig":{"voiceConfig":{"customVoice":{"voice":"voices/{id}"}}}}}"#,
            ),
            ("POST", "/v1beta/openai/audio/speech", r#"{"model":"m","voice":"{id}"}"#),
            ("POST", "/v1beta/openai/audio/speech", r#"{"model":"m","voice":{"id":"{id}"}}"#),
        ],
    },
    Row {
        what: "a webhook",
        made: &[(("POST", "/v1beta/webhooks", "{}"), r#"{"name":"webhooks/{id}"}"#)],
        uses: &[
            ("PATCH", "/v1/webhooks/{id}", "{}"),
            ("POST", "/v1/webhooks/{id}:rotateSigningSecret", "{}"),
            ("POST", INTERACTION, r#"{"model":"m","webhook":"webhooks/{id}"}"#),
        ],
    },
    Row {
        what: "a video of the OpenAI-compatible surface",
        made: &[(
            ("POST", "/v1beta/openai/videos", r#"{"model":"veo-3.1","prompt":"x"}"#),
            r#"{"id":"video_{id}","object":"video","status":"queued"}"#,
        )],
        uses: &[
            ("GET", "/v1beta/openai/videos/video_{id}", ""),
            ("GET", "/v1/openai/videos/video_{id}/content", ""),
            ("POST", "/v1beta/openai/videos/video_{id}/remix", r#"{"prompt":"y"}"#),
            ("POST", "/v1beta/openai/videos/extensions", r#"{"video":{"id":"video_{id}"}}"#),
        ],
    },
    Row {
        what: "a response of the OpenAI-compatible surface",
        made: &[(
            ("POST", "/v1beta/openai/responses", r#"{"model":"m","input":"x"}"#),
            r#"{"id":"resp_{id}","object":"response"}"#,
        )],
        uses: &[
            ("GET", "/v1beta/openai/responses/resp_{id}", ""),
            ("POST", "/v1beta/openai/responses/resp_{id}/cancel", ""),
            ("POST", "/v1beta/openai/responses", r#"{"model":"m","previous_response_id":"resp_{id}"}"#),
        ],
    },
    Row {
        what: "a response that streams",
        made: &[(
            ("POST", "/v1beta/openai/responses", r#"{"model":"m","input":"x","stream":true}"#),
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_{id}\"}}\n\n",
        )],
        uses: &[
            ("GET", "/v1beta/openai/responses/resp_{id}", ""),
            ("POST", "/v1/openai/responses", r#"{"model":"m","previous_response_id":"resp_{id}"}"#),
        ],
    },
    Row {
        what: "a file and a batch of the OpenAI-compatible surface",
        made: &[
            (
                ("POST", "/v1beta/openai/files", "--multipart"),
                r#"{"id":"file-{id}","object":"file","purpose":"batch"}"#,
            ),
            (
                ("POST", "/v1beta/openai/batches", r#"{"input_file_id":"file-{id}"}"#),
                r#"{"id":"batch_{id}","object":"batch","metadata":{"name":"mine"}}"#,
            ),
            (
                ("GET", "/v1beta/openai/batches/batch_{id}", ""),
                r#"{"id":"batch_{id}","object":"batch","output_file_id":"file-o{id}","error_file_id":"file-e{id}"}"#,
            ),
        ],
        uses: &[
            ("GET", "/v1/openai/files/file-{id}/content", ""),
            ("POST", "/v1beta/openai/batches", r#"{"input_file_id":"file-{id}"}"#),
            ("GET", "/v1/openai/batches/batch_{id}", ""),
            ("POST", "/v1beta/openai/batches/batch_{id}/cancel", ""),
            ("GET", "/v1beta/openai/files/file-o{id}/content", ""),
            ("GET", "/v1beta/openai/files/file-e{id}", ""),
            (
                "POST",
                "/v1beta/openai/chat/completions",
                r#"{"messages":[{"content":[{"file":{"file_id":"file-o{id}"}}]}]}"#,
            ),
        ],
    },
    Row {
        what: "an answer that goes on",
        made: &[(
            ("POST", GENERATE, "{}"),
            r#"{"candidates":[{"content":{"role":"model"},"finishReason":"CONTINUATION","continuationToken":"t{id}=\u003d\/"}]}"#,
        )],
        uses: &[
            ("POST", GENERATE, r#"{"contents":[],"continuationToken":"t{id}==/"}"#),
            ("POST", GENERATE, r#"{"continuation_token" : "t{id}\u003D=\/"}"#),
        ],
    },
    Row {
        what: "an interaction that goes on",
        made: &[(
            ("POST", INTERACTION, r#"{"model":"m","input":"x","store":false}"#),
            r#"{"id":"v1_{id}","status":"requires_continuation","continuation_token":"i{id}\u003d"}"#,
        )],
        uses: &[
            ("POST", INTERACTION, r#"{"model":"m","continuation_token":"i{id}="}"#),
            ("POST", VERTEX, r#"{"model":"m","continuationToken":"i{id}="}"#),
        ],
    },
    Row {
        what: "an interaction that streams and goes on",
        made: &[(
            ("POST", INTERACTION, r#"{"model":"m","stream":true}"#),
            "data: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1_{id}\"}}\n\n{pad}data: {\"event_type\":\"interaction.completed\",\"interaction\":{\"continuation_token\":\"j{id}\"}}\n\n",
        )],
        uses: &[
            ("POST", INTERACTION, r#"{"model":"m","continuation_token":"j{id}"}"#),
            ("POST", INTERACTION, r#"{"model":"m","previous_interaction_id":"v1_{id}"}"#),
        ],
    },
    Row {
        what: "a stream that goes on",
        made: &[(
            ("POST", support::STREAM, "{}"),
            "data: {\"candidates\":[{\"finishReason\":\"CONTINUATION\",\"continuationToken\":\"s{id}\"}]}\n\n",
        )],
        uses: &[
            ("POST", support::STREAM, r#"{"continuationToken":"s{id}"}"#),
            ("POST", GENERATE, r#"{"a":{"continuation_token":"s{id}"}}"#),
        ],
    },
];

// === two projects ===

fn secret(project: &str) -> String {
    format!("AIza-nobodys-{project}")
}

/// Makes a pool of two projects, of which `default` is the default one; creations go to either.
fn spread(default: &str) -> KeyPool {
    pool(default, true)
}

fn pool(default: &str, spread: bool) -> KeyPool {
    let key = |project: &str| Key::new(ApiKey::new(secret(project)).unwrap()).project(project);
    let keys = KeyPool::builder().cache_affinity(None).key(key("p1")).key(key("p2"));
    keys.default_project(default).spread_creations(spread).build().unwrap()
}

fn project_of(asked: &Asked) -> String {
    let headers = &asked.headers;
    let key = headers.get("x-goog-api-key").or(headers.get("authorization")).unwrap().to_str().unwrap();
    key.rsplit('-').next().unwrap().to_owned()
}

/// The things that there are.
#[derive(Default)]
struct World {
    /// The project of each thing, by its id.
    owners: HashMap<String, String>,
    /// The answer to the next call about a thing.
    answer: Option<String>,
}

type Things = Arc<Mutex<World>>;

/// Makes an upstream in which a thing belongs to the project whose key made it, and is refused to the other's.
fn two_projects(things: Things) -> Upstream {
    Upstream::new(move |_, asked| {
        let things = things.clone();
        async move {
            let project = project_of(&asked);
            let Some(id) = asked.headers.get(THING).map(|id| id.to_str().unwrap().to_owned()) else {
                return Ok(json(200, HELLO));
            };
            let mut world = things.lock();
            let answer = world.answer.take();
            let owner = world.owners.entry(id).or_insert_with(|| project.clone());
            if *owner != project {
                return Ok(refusal(asked.uri.path()));
            }
            Ok(answer.map_or_else(|| json(200, HELLO), |answer| answered(&answer)))
        }
    })
}

fn answered(answer: &str) -> Response<AnyBody> {
    if let Some(url) = answer.strip_prefix("upload: ") {
        let mut response = json(200, "");
        response.headers_mut().insert("x-goog-upload-url", url.parse().unwrap());
        return response;
    }
    if answer.contains("data: ") {
        return sse(support::chunks(answer.as_bytes().chunks(23)));
    }
    json(200, answer.to_owned())
}

/// Refuses what belongs to another project, in Google's words.
fn refusal(path: &str) -> Response<AnyBody> {
    let (code, status, message) = match path {
        path if path.contains("/files") || path.contains(":generateContent") => {
            (403, "PERMISSION_DENIED", "You do not have permission to access the File x or it may not exist.")
        }
        path if path.contains("/interactions") => {
            return json(404, r#"{"error":{"code":"not_found","message":"Interaction x not found."}}"#);
        }
        _ => (404, "NOT_FOUND", "Requested entity was not found."),
    };
    json(code, format!(r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}"}}}}"#))
}

trait Calls: Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send> + Clone {}

impl<S> Calls for S where
    S: Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send> + Clone
{
}

fn service(pool: &KeyPool, upstream: Upstream) -> impl Calls + use<> {
    ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(support::any))
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream)
}

/// Makes the request about a thing.
fn request((method, uri, body): Sent, id: &str) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.replace("{id}", id)));
    Request::builder().method(method).uri(uri.replace("{id}", id)).header(THING, id).body(body).unwrap()
}

/// Makes the thing, or a part of it.
async fn create(service: &impl Calls, things: &Things, (sent, answer): &(Sent, &str), id: &str) {
    let delta = "data: {\"event_type\":\"step.delta\",\"delta\":{\"text\":\"and so on, and so on, and so on\"}}\n\n";
    let answer = answer.replace("{pad}", &delta.repeat(2_000)).replace("{id}", id);
    things.lock().answer = Some(answer);
    let response = service.clone().oneshot(request(*sent, id)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{sent:?} in {:?}", things.lock().owners.get(id));
    read(response.into_body()).await;
}

fn new_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("thing{}z", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a thing in that project: as often as it takes, for creations are spread.
async fn make(service: &impl Calls, things: &Things, row: &Row, project: &str) -> String {
    for _ in 0..200 {
        let id = new_id();
        for step in row.made {
            create(service, things, step, &id).await;
        }
        if things.lock().owners[&id] == project {
            return id;
        }
    }
    panic!("{}: never made in {project}", row.what)
}

#[tokio::test(start_paused = true)]
async fn what_a_project_has_made_is_asked_of_that_project_twelve_times_of_twelve() {
    for (owner, default) in [("p1", "p2"), ("p2", "p1")] {
        let things = Things::default();
        let upstream = two_projects(things.clone());
        let service = service(&spread(default), upstream.clone());
        let mut wrong = Vec::new();
        for row in ROWS {
            let id = make(&service, &things, row, owner).await;
            // Each place at least once.
            for nth in 0..USES.max(row.uses.len()) {
                // Other calls go in between, to either project.
                for _ in 0..fastrand::usize(..3) {
                    service.clone().oneshot(post(GENERATE)).await.unwrap();
                }
                let sent = row.uses[nth % row.uses.len()];
                let response = service.clone().oneshot(request(sent, &id)).await.unwrap();
                let project = project_of(&upstream.asked().pop().unwrap());
                if project != owner || response.status() != StatusCode::OK {
                    wrong.push(format!("{}: {sent:?} went to {project}, {}", row.what, response.status()));
                }
            }
        }
        assert!(wrong.is_empty(), "made in {owner}:\n{}", wrong.join("\n"));
        let projects: BTreeSet<_> = upstream.asked().iter().map(project_of).collect();
        assert_eq!(projects.len(), 2, "the other calls are spread");
    }
}

/// Returns the number of calls that went to each project.
async fn counts(service: &impl Calls, upstream: &Upstream, times: usize, sent: Sent) -> (usize, usize) {
    let from = upstream.calls();
    for _ in 0..times {
        let (method, uri, body) = sent;
        let request = Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body))).unwrap();
        read(service.clone().oneshot(request).await.unwrap().into_body()).await;
    }
    let asked = upstream.asked();
    let first = asked[from..].iter().filter(|asked| project_of(asked) == "p1").count();
    (first, times - first)
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_project_has_made_binds_a_call_only_where_it_can_be_nothing_else() {
    let upstream = two_projects(Things::default());
    let service = service(&spread("p2"), upstream.clone());
    // The control of the matrix: nothing is known of them, and they go anywhere.
    for body in [
        r#"{"agent":"deep-research-pro-preview-12-2025","input":"x"}"#,
        r#"{"agent":"agents/deep-research-pro-preview-12-2025"}"#,
        r#"{"agent":"mine","environment":"remote"}"#,
        r#"{"model":"m","environment":{"type":"remote"}}"#,
        r#"{"model":"m","voice":"Kore","voiceName":"Puck"}"#,
        r#"{"model":"m","continuationToken":"nobodys"}"#,
        r#"{"model":"m","input":[{"type":"document","uri":"gs://bucket/anybodys.pdf"}]}"#,
        r#"{"model":"m","tools":[{"args":{"fileName":"src/files/main.rs","path":"files/main.rs","file_id":"7"}}]}"#,
        r#"{"model":"m","input":"previous_interaction_id: \"v1_x\", \"fileUri\":\"files/x\""}"#,
    ] {
        let (first, second) = counts(&service, &upstream, 60, ("POST", INTERACTION, body)).await;
        assert!(first > 0 && second > 0, "{body}: {first} and {second}");
    }
    for (uri, body) in [
        (INTERACTION, r#"{"model":"m","previous_interaction_id":"v1_x"}"#),
        (INTERACTION, r#"{"model":"m","environment":"environments/x"}"#),
        (INTERACTION, r#"{"model":"m","input":[{"type":"video","uri":"https://h/v1beta/files/x"}]}"#),
        (GENERATE, r#"{"cachedContent":"cachedContents/x"}"#),
        (GENERATE, r#"{"contents":[{"parts":[{"functionCall":{"args":{"fileName":"files/x"}}}]}]}"#),
        (BATCH, r#"{"batch":{"input_config":{"file_name":"files/x"}}}"#),
        ("/v1beta/openai/batches", r#"{"input_file_id":"file-x"}"#),
    ] {
        assert_eq!(counts(&service, &upstream, 12, ("POST", uri, body)).await, (0, 12), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_default_project_shows_is_its_own_but_for_what_google_has_made_for_all() {
    let upstream = Upstream::new(|_, asked| async move {
        Ok(match asked.uri.path() {
            "/v1beta/environments" => json(200, r#"{"environments":[{"id":"env_a"},{"id":"env_b"}]}"#),
            "/v1beta/environments/env_c" => json(200, r#"{"id":"env_c"}"#),
            "/v1beta/agents" => json(200, r#"{"agents":[{"id":"deep-research"},{"name":"agents/researcher"}]}"#),
            _ => json(200, HELLO),
        })
    });
    let service = service(&spread("p2"), upstream.clone());
    let shown = ["/v1beta/environments", "/v1beta/environments/env_c", "/v1beta/agents"];
    for uri in shown {
        assert_eq!(counts(&service, &upstream, 1, ("GET", uri, "")).await, (0, 1), "{uri}");
    }
    for body in [r#"{"environment":"env_a"}"#, r#"{"environment":"env_b"}"#, r#"{"environment_id":"env_c"}"#] {
        assert_eq!(counts(&service, &upstream, 12, ("POST", INTERACTION, body)).await, (0, 12), "{body}");
    }
    for body in [r#"{"agent":"deep-research"}"#, r#"{"agent":"agents/researcher"}"#] {
        let (first, second) = counts(&service, &upstream, 60, ("POST", INTERACTION, body)).await;
        assert!(first > 0 && second > 0, "{body}: {first} and {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_is_known_from_the_beginning_of_a_long_answer() {
    let answer = |id: &str| {
        let picture = "A".repeat(300_000);
        format!(r#"{{"id":"{id}","object":"interaction","steps":[{{"type":"image","data":"{picture}"}}]}}"#)
    };
    let things = Things::default();
    let service = service(&spread("p1"), two_projects(things.clone()));
    for _ in 0..20 {
        let id = new_id();
        let whole = (("POST", INTERACTION, r#"{"model":"m"}"#), &*answer(&id));
        create(&service, &things, &whole, &id).await;
        for _ in 0..3 {
            let used = request(("POST", INTERACTION, r#"{"previous_interaction_id":"{id}"}"#), &id);
            assert_eq!(service.clone().oneshot(used).await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_made_again_elsewhere_is_asked_there() {
    let things = Things::default();
    let upstream = two_projects(things.clone());
    let service = service(&spread("p1"), upstream.clone());
    let agent = (("POST", "/v1beta/agents", "{}"), r#"{"id":"{id}"}"#);
    let mut owners = BTreeSet::new();
    for _ in 0..200 {
        things.lock().owners.clear();
        create(&service, &things, &agent, "mine").await;
        let owner = things.lock().owners["mine"].clone();
        for _ in 0..3 {
            let used = request(("POST", INTERACTION, r#"{"agent":"mine"}"#), "mine");
            assert_eq!(service.clone().oneshot(used).await.unwrap().status(), StatusCode::OK, "{owner}");
        }
        owners.insert(owner);
        if owners.len() == 2 {
            return;
        }
    }
    panic!("made in {owners:?} only");
}

// === creations ===

const INVALID: &str = r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}"#;
const SUSPENDED: &str = r#"{"error":{"code":403,"message":"Permission denied: Consumer 'api_key:AIza' has been suspended.","status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"CONSUMER_SUSPENDED","domain":"googleapis.com"}]}}"#;
const SPENT: &str = r#"{"error":{"code":429,"message":"Your project has exceeded its monthly spending cap.","status":"RESOURCE_EXHAUSTED"}}"#;

#[tokio::test(start_paused = true)]
async fn a_creation_that_the_default_project_refuses_is_made_elsewhere_and_found_there() {
    for (status, refused) in [(400, INVALID), (403, SUSPENDED), (429, SPENT)] {
        let upstream = Upstream::new(move |_, asked| async move {
            Ok(match (project_of(&asked).as_str(), &asked.method, asked.uri.path()) {
                ("p1", _, _) => json(status, refused),
                (_, &Method::POST, "/v1beta/cachedContents") => json(200, r#"{"name":"cachedContents/c"}"#),
                (_, &Method::POST, "/upload/v1beta/files") => json(200, r#"{"file":{"name":"files/f"}}"#),
                _ => json(200, HELLO),
            })
        });
        let service = service(&pool("p1", false), upstream.clone());
        for uri in ["/v1beta/cachedContents", "/upload/v1beta/files"] {
            let at = upstream.calls();
            let response = service.clone().oneshot(post(uri)).await.unwrap();
            let first = project_of(&upstream.asked()[at]);
            // The key may be disabled by now, and then the first attempt goes elsewhere.
            if first == "p1" {
                let outcome = support::outcome(&response);
                assert_eq!(outcome.retry(), Some(RetryAdvice::Now), "{uri} {refused}");
                let mut again = post(uri);
                let tried: Vec<Tried> = outcome.tried().cloned().into_iter().collect();
                CallContext::update(again.extensions_mut(), |context| context.set_tried(tried));
                let response = service.clone().oneshot(again).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                read(response.into_body()).await;
            } else {
                read(response.into_body()).await;
            }
            assert_eq!(project_of(&upstream.asked().pop().unwrap()), "p2", "{uri} {refused}");
        }
        assert!(upstream.asked().iter().any(|asked| project_of(asked) == "p1"), "the default project comes first");
        for (method, uri, body) in [
            ("GET", "/v1beta/cachedContents/c", ""),
            ("POST", GENERATE, r#"{"cachedContent":"cachedContents/c"}"#),
            ("POST", GENERATE, r#"{"contents":[{"parts":[{"fileData":{"fileUri":"files/f"}}]}]}"#),
        ] {
            assert_eq!(counts(&service, &upstream, 12, (method, uri, body)).await, (0, 12), "{uri} {body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn creations_stay_together_as_long_as_the_default_project_takes_them() {
    let upstream = two_projects(Things::default());
    let service = service(&pool("p2", false), upstream.clone());
    for uri in ["/v1beta/cachedContents", "/upload/v1beta/files", "/v1beta/agents", "/v1beta/openai/videos"] {
        assert_eq!(counts(&service, &upstream, 12, ("POST", uri, "{}")).await, (0, 12), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_goes_on_passes_untouched_however_it_is_cut() {
    let answer = r#"{"candidates":[{"finishReason":"CONTINUATION","continuationToken":"a-long-token"}]}"#;
    for cut in (1..answer.len()).step_by(3) {
        let upstream = Upstream::new(move |_, asked| async move {
            let (one, other) = answer.split_at(cut);
            let goes_on = asked.body.is_empty();
            Ok(if goes_on {
                support::typed(200, "application/json", support::chunks([one, other]))
            } else {
                json(200, HELLO)
            })
        });
        let service = service(&spread("p1"), upstream.clone());
        let begun = Request::post(GENERATE).body(Full::default()).unwrap();
        let response = service.clone().oneshot(begun).await.unwrap();
        assert_eq!(read(response.into_body()).await, answer);
        let owner = project_of(&upstream.asked()[0]);
        let going_on = ("POST", GENERATE, r#"{"continuation_token":"a-long-token"}"#);
        let expected = if owner == "p1" { (12, 0) } else { (0, 12) };
        assert_eq!(counts(&service, &upstream, 12, going_on).await, expected, "{cut}");
    }
}
