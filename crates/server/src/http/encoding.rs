//! Pages and their files, packed as the browser takes them: zstd, else gzip, else as they are.
//!
//! Packing lets a listener on the line learn what is secret from how long an answer is, if it can put its own text beside the secret. Pages hold no
//! secret: the token is in a cookie, and forms are told apart by who sent them, not by a word in the page. The one that shows a token which was made
//! just now is not packed.

use std::io::Write;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};

/// The least that is worth packing, in bytes.
const BYTES_MIN: usize = 860;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// Half of the time of gzip's default for a few per cent more.
const GZIP_LEVEL: u32 = 4;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Zstd,
    Gzip,
}

/// The best that the asker takes (RFC 9110, 12.5.3); `None` if it takes none of ours.
fn wanted(headers: &HeaderMap) -> Option<Encoding> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut has = (false, false);
    for one in values.flat_map(|value| value.split(',')) {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).unwrap_or(1.0);
        match name.trim().to_ascii_lowercase().as_str() {
            _ if weight <= 0.0 => {}
            "zstd" => has.0 = true,
            "gzip" => has.1 = true,
            _ => {}
        }
    }
    match has {
        (true, _) => Some(Encoding::Zstd),
        (false, true) => Some(Encoding::Gzip),
        (false, false) => None,
    }
}

fn pack(encoding: Encoding, text: &[u8]) -> std::io::Result<(&'static str, Vec<u8>)> {
    match encoding {
        Encoding::Zstd => Ok(("zstd", zstd::bulk::compress(text, ZSTD_LEVEL)?)),
        Encoding::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
            writer.write_all(text)?;
            Ok(("gzip", writer.finish()?))
        }
    }
}

/// Gives the answer this body, packed if the asker of `headers` takes that and it is worth it.
pub fn packed(headers: &HeaderMap, mut response: Response<Body>, text: &[u8]) -> Response<Body> {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding, cookie"));
    let encoding = wanted(headers).filter(|_| text.len() >= BYTES_MIN);
    match encoding.map(|encoding| pack(encoding, text)) {
        Some(Ok((name, body))) => {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            *response.body_mut() = Body::from(body);
        }
        // What cannot be packed goes as it is.
        Some(Err(_)) | None => *response.body_mut() = Body::from(text.to_vec()),
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Option<Encoding>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).expect("a header"));
        assert_eq!(wanted(&headers), expected, "{accept}");
    }

    #[test]
    fn the_best_that_is_taken() {
        check("gzip, deflate, br, zstd", Some(Encoding::Zstd));
        check("gzip, deflate, br", Some(Encoding::Gzip));
        check("GZIP;q=0.5", Some(Encoding::Gzip));
        check("zstd;q=0, gzip;q=0.0, br", None);
        check("", None);
        check("zstd;q=odd", Some(Encoding::Zstd));
    }

    #[test]
    fn what_was_packed_is_the_same() {
        let text = "some text, again and again; ".repeat(1000);
        let (_, body) = pack(Encoding::Zstd, text.as_bytes()).expect("it is packed");
        assert!(body.len() < 1000);
        assert_eq!(zstd::bulk::decompress(&body, text.len()).expect("it is whole"), text.as_bytes());
        let (_, body) = pack(Encoding::Gzip, text.as_bytes()).expect("it is packed");
        let mut whole = String::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut whole).expect("it is whole");
        assert_eq!(whole, text);
    }
}
