//! A worker's own network: a namespace, and a pair of ends of a cable into it. Cut, it lets nothing through and says nothing,
//! as a cable that was pulled.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::run;

/// A namespace that ends with its value.
pub struct Wire {
    /// The name of the namespace, as `ip netns exec` takes it.
    pub namespace: String,
    /// Where the worker finds this machine.
    pub host: String,
    end: String,
}

impl Wire {
    /// A network of its own.
    ///
    /// # Errors
    /// A sentence, as where it is not permitted.
    pub fn new() -> Result<Self, String> {
        if !crate::is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let id = std::process::id();
        // A small network of its own for each storm of a machine: names have at most 15 letters.
        let (third, fourth) = (id / 60 % 250, id % 60 * 4);
        let (namespace, end, far) = (format!("ropewalk{id}"), format!("rw{id}a"), format!("rw{id}b"));
        let (host, other) = (format!("10.213.{third}.{}", fourth + 1), format!("10.213.{third}.{}", fourth + 2));
        let wire = Self { namespace: namespace.clone(), host: host.clone(), end: end.clone() };
        ip(&["netns", "add", &namespace])?;
        ip(&["link", "add", &end, "type", "veth", "peer", "name", &far, "netns", &namespace])?;
        ip(&["address", "add", &format!("{host}/30"), "dev", &end])?;
        ip(&["link", "set", &end, "up"])?;
        ip(&["-n", &namespace, "address", "add", &format!("{other}/30"), "dev", &far])?;
        ip(&["-n", &namespace, "link", "set", &far, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(wire)
    }

    /// Pulls the cable for a while.
    pub async fn pull(&self, time: Duration) {
        let _ = ip(&["link", "set", &self.end, "down"]);
        tokio::time::sleep(time).await;
        let _ = ip(&["link", "set", &self.end, "up"]);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Both ends go with it.
        let _ = ip(&["netns", "delete", &self.namespace]);
        let _ = Command::new("ip").args(["link", "delete", &self.end]).stderr(Stdio::null()).status();
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}
