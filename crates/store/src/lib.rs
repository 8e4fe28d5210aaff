//! Facts, the rows projected from them, logs and blobs.
