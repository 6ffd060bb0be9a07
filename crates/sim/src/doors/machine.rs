//! Facts of a machine that does not exist.

use kubelet::doors::{Machine, MachineInfo, Short};

/// See the module's text.
pub struct SimMachine(MachineInfo);

impl SimMachine {
    /// The `index`th node's: four CPUs and 8 GiB.
    pub fn new(index: u8) -> SimMachine {
        SimMachine(MachineInfo {
            cpu_milli: 4000,
            memory: 8 << 30,
            storage: 100 << 30,
            addresses: vec![[192, 0, 2, index].into()],
            hostname: format!("n{index}"),
            machine_id: format!("machine-{index}"),
            system_uuid: format!("system-{index}"),
            boot_id: format!("boot-{index}"),
            kernel_version: "6.12.0".into(),
            os_image: "Simulated".into(),
            architecture: "amd64".into(),
        })
    }
}

impl Machine for SimMachine {
    fn info(&self) -> MachineInfo {
        self.0.clone()
    }
    fn short(&self) -> Vec<Short> {
        Vec::new()
    }
    fn resolv_conf(&self) -> String {
        "nameserver 192.0.2.53\n".into()
    }
    fn hosts(&self) -> String {
        "127.0.0.1 localhost\n".into()
    }
}
