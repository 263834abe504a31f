//! The files of the pages (`web/ui`), embedded into the program: style sheet, scripts, icon.
//!
//! A browser keeps them but asks each time whether they changed (`ETag`, answered 304 without a body), so that after an
//! upgrade no page runs with the scripts of the version before. A debug build reads them from the disk.
//!
//! Scripts and styles are sent without the lines that are comments as a whole, and without indentation: the pages need no
//! tool to be built, and what explains them costs browsers nothing. All of them compressed are at most 80 kB (a browser test).

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

/// Keep, but ask before every use.
const REVALIDATE: &str = "no-cache";

#[derive(RustEmbed)]
#[folder = "ui/"]
struct Ui;

/// The file at `path` below `web/ui`, or `None` when there is none by that name.
fn get(path: &str, headers: &HeaderMap) -> Option<Response> {
    let file = Ui::get(path)?;
    let tag = tag_of(&file.metadata.sha256_hash());
    let cached = headers.get_all(IF_NONE_MATCH).iter().any(|known| {
        known.to_str().is_ok_and(|list| list.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
    });
    let head = [(ETAG, tag), (CACHE_CONTROL, REVALIDATE.to_owned())];
    if cached {
        return Some((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let kind = content_type(file.metadata.mimetype());
    let data = match std::str::from_utf8(&file.data) {
        Ok(text) if kind.starts_with("text/") => lean(text).into_bytes(),
        _ => file.data.into_owned(),
    };
    Some((head, [(CONTENT_TYPE, kind)], data).into_response())
}

/// A script or style without comments that are lines of their own, and without indentation. It looks at whole lines alone, so
/// it holds for text in which no string goes on over lines: true of ours, and tested.
fn lean(text: &str) -> String {
    let mut lean = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        let ends = line.find("*/").map(|at| at + "*/".len() == line.len());
        if inside {
            inside = ends.is_none();
            continue;
        }
        // What begins with a comment and goes on behind it is code.
        if line.starts_with("/*") && ends != Some(false) {
            inside = ends.is_none();
            continue;
        }
        if !line.is_empty() && !line.starts_with("//") {
            lean.push_str(line);
            lean.push('\n');
        }
    }
    lean
}

/// `GET /assets/{*path}`.
pub(crate) async fn serve(Path(path): Path<String>, headers: HeaderMap) -> Response {
    get(&path, &headers)
        .unwrap_or_else(|| (StatusCode::NOT_FOUND, format!("There is no asset {path}.\n")).into_response())
}

/// `GET /favicon.ico`, which browsers ask for on their own.
pub(crate) async fn favicon(headers: HeaderMap) -> Response {
    serve(Path("icon.svg".to_owned()), headers).await
}

/// A strong validator: the first half of the file's SHA-256.
fn tag_of(hash: &[u8; 32]) -> String {
    let digits: String = hash[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex).collect();
    format!("\"{digits}\"")
}

/// The digit of a value below 16.
fn hex(value: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(value & 15)])
}

/// Text is UTF-8, and says so.
fn content_type(guessed: &str) -> String {
    if guessed.starts_with("text/") { format!("{guessed}; charset=utf-8") } else { guessed.to_owned() }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn scripts_and_styles_have_types_that_browsers_accept() {
        for (path, kind) in [
            ("css/app.css", "text/css; charset=utf-8"),
            ("js/live.js", "text/javascript; charset=utf-8"),
            ("icon.svg", "image/svg+xml"),
        ] {
            let answer = get(path, &HeaderMap::new()).unwrap_or_else(|| panic!("{path} is not embedded"));
            assert_eq!(answer.headers()[CONTENT_TYPE], kind, "{path}");
        }
    }

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let first = get("css/app.css", &HeaderMap::new()).unwrap();
        let tag = first.headers()[ETAG].clone();
        let ask =
            |value: HeaderValue| get("css/app.css", &HeaderMap::from_iter([(IF_NONE_MATCH, value)])).unwrap();
        assert_eq!(ask(tag).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(HeaderValue::from_static("\"other\"")).status(), StatusCode::OK);
    }

    #[test]
    fn comments_are_not_sent() {
        let text = "// why\n/** @param {x} y\n * more\n */\n  const a = 'http://b'; // kept\n\n/* one line */\nb();\n/** @type {x} */ (c)();\n";
        assert_eq!(lean(text), "const a = 'http://b'; // kept\nb();\n/** @type {x} */ (c)();\n");
        // What `lean` relies on: no template goes on over lines, and no comment begins behind code and ends further down.
        for path in Ui::iter() {
            let file = Ui::get(&path).unwrap();
            for line in String::from_utf8_lossy(&file.data).lines().map(str::trim) {
                assert!(!line.starts_with("*/") || line == "*/", "{path}: {line}");
                if line.starts_with("//") || line.starts_with('*') || line.starts_with("/*") {
                    continue;
                }
                assert_eq!(line.matches('`').count() % 2, 0, "{path}: {line}");
                assert!(line.rfind("/*").is_none_or(|at| line[at..].contains("*/")), "{path}: {line}");
            }
        }
    }

    #[test]
    fn nothing_outside_the_folder_is_served() {
        for path in ["../Cargo.toml", "css/../../Cargo.toml", "", "css", "/etc/passwd"] {
            assert!(get(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }

    /// The pages load nothing from the network and run no inline code: what the content security policy forbids must
    /// not stand in a file either.
    #[test]
    fn no_file_refers_to_another_host() {
        for path in Ui::iter() {
            let file = Ui::get(&path).unwrap();
            let text = String::from_utf8_lossy(&file.data);
            for line in text.lines().filter(|line| !line.contains("http://www.w3.org/2000/svg")) {
                assert!(!line.contains("http://") && !line.contains("https://"), "{path}: {line}");
            }
        }
    }
}
