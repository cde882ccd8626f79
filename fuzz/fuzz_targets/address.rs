//! An address: what it becomes means the same when it is written down, and nothing of it is an option or a word of a shell.

#![no_main]

use backend_buildkitd::Endpoint;
use bk_dial::{Helper, Serves};
use libfuzzer_sys::fuzz_target;

/// What may stand before what an address says, and what stands by itself.
const OPENS: [&str; 5] = ["--context=", "--host=", "--namespace=", "--container=", "--kubeconfig="];
const FIXED: [&str; 9] = ["-i", "-T", "-o", "-l", "-p", "--", "--namespace", "--addr", "--host"];

fuzz_target!(|text: &str| {
    for serves in [Serves::Buildkit, Serves::Docker] {
        if let Some(Ok(helper)) = Helper::parse(text, serves) {
            assert_eq!(helper.to_string(), text);
            obeys(&helper);
        }
    }
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        let shown = endpoint.to_string();
        let again = shown.parse::<Endpoint>().map(|e| e.to_string());
        assert_eq!(again.as_deref().ok(), Some(&*shown), "{text:?}");
    }
});

fn obeys(helper: &Helper) {
    let arguments = helper.arguments();
    for word in arguments {
        let known = FIXED.contains(&&**word) || OPENS.iter().any(|open| word.starts_with(open));
        assert!(known || !word.starts_with('-'), "{arguments:?}");
        assert!(!word.contains(char::is_control), "{arguments:?}");
    }
    // What follows the machine's name is for a shell there.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
    let far = arguments.iter().skip_while(|word| *word != "--").skip(2);
    let ssh = helper.program().to_str() == Some("ssh");
    assert!(!ssh || far.clone().count() > 1, "{arguments:?}");
    assert!(!ssh || far.flat_map(|word| word.bytes()).all(plain), "{arguments:?}");
}
