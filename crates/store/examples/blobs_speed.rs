//! How fast blobs in an S3-compatible store are: `blobs_speed ENDPOINT BUCKET KEY SECRET [MIB]`.
//!
//! Small blobs put and read one by one, then one file of so many MiB (256 unless told) in parts, read whole.

use std::error::Error;
use std::io::Read;
use std::time::Instant;

use ropewalk_store::blob::{Blobs, S3Blobs, S3Credentials, S3Settings, UrlForm};

const SMALL: u32 = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, bucket, key, secret, rest @ ..] = arguments.as_slice() else {
        return Err("expected ENDPOINT BUCKET KEY SECRET [MIB]".into());
    };
    let mib: usize = rest.first().map_or(Ok(256), |mib| mib.parse())?;
    let blobs = S3Blobs::open(S3Settings {
        endpoint: endpoint.clone(),
        bucket: bucket.clone(),
        region: "us-east-1".to_owned(),
        prefix: format!("speed-{}/", std::process::id()),
        url_form: UrlForm::Path,
        credentials: S3Credentials { key: key.clone(), secret: secret.clone(), session: None },
        cache: None,
    })?;
    let begun = Instant::now();
    let names = (0..SMALL).map(|index| blobs.put(&index.to_le_bytes().repeat(256))).collect::<Result<Vec<_>, _>>()?;
    println!("put of 1 KiB: {} us each", begun.elapsed().as_micros() / u128::from(SMALL));
    let begun = Instant::now();
    for name in &names {
        blobs.get(*name, 1 << 20)?;
    }
    println!("get of 1 KiB: {} us each", begun.elapsed().as_micros() / u128::from(SMALL));
    large(&blobs, mib)
}

fn large(blobs: &S3Blobs, mib: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    let mut seed = u64::from(std::process::id());
    let mut content = vec![0; mib << 20];
    for word in content.chunks_exact_mut(8) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        word.copy_from_slice(&seed.to_le_bytes());
    }
    std::fs::write(&path, &content)?;
    drop(content);
    let rate = |begun: Instant| (mib << 20) as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let put = blobs.put_file(&path)?;
    println!("put of {mib} MiB: {:.0} MB/s", rate(begun));
    let begun = Instant::now();
    let (mut content, mut chunk) = (blobs.open(put.digest)?, vec![0; 1 << 20]);
    while content.read(&mut chunk)? > 0 {}
    println!("get of {mib} MiB: {:.0} MB/s", rate(begun));
    Ok(())
}
