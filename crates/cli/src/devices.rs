//! `yolo-lat devices`: the adapters that wgpu finds.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::engine::gpu::{AdapterReport, adapters};

#[derive(Args, Debug)]
pub(super) struct DevicesArguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DevicesArguments) -> anyhow::Result<ExitCode> {
    let adapters = adapters();
    if arguments.json {
        let adapters: Vec<_> = adapters.iter().map(as_json).collect();
        return super::print(&format!("{}\n", json!({ "adapters": adapters })));
    }
    if adapters.is_empty() {
        return super::print("no adapters: neither a GPU nor a software one (Debian: mesa-vulkan-drivers)\n");
    }
    let mut text = String::new();
    for adapter in &adapters {
        let info = &adapter.info;
        let usage = match (adapter.suitable, adapter.automatic) {
            (false, _) => "its limits are too small",
            (true, true) => "used by --engine gpu and auto",
            (true, false) => "used only when named with --adapter",
        };
        let features: Vec<&str> =
            [("f16", adapter.f16), ("subgroups", adapter.subgroups), ("timestamps", adapter.timestamps)]
                .iter()
                .filter_map(|&(name, has)| has.then_some(name))
                .collect();
        let limits = &adapter.limits;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}\n    {}, {:?}, driver {} {}\n    {usage}\n    features: {}\n    buffers up to {} MiB, bound up to {} MiB, \
             {} storage buffers a stage, {} KiB of workgroup memory, {} threads a workgroup, textures up to {}",
            info.name,
            info.backend,
            info.device_type,
            info.driver,
            info.driver_info,
            if features.is_empty() { "none of those used".to_owned() } else { features.join(", ") },
            limits.max_buffer_size >> 20,
            limits.max_storage_buffer_binding_size >> 20,
            limits.max_storage_buffers_per_shader_stage,
            limits.max_compute_workgroup_storage_size >> 10,
            limits.max_compute_invocations_per_workgroup,
            limits.max_texture_dimension_2d,
        );
    }
    super::print(&text)
}

pub(super) fn as_json(adapter: &AdapterReport) -> serde_json::Value {
    let (info, limits) = (&adapter.info, &adapter.limits);
    json!({
        "name": info.name, "backend": info.backend.to_string(), "type": format!("{:?}", info.device_type),
        "driver": info.driver, "driver_info": info.driver_info, "automatic": adapter.automatic,
        "suitable": adapter.suitable,
        "features": { "f16": adapter.f16, "subgroups": adapter.subgroups, "timestamps": adapter.timestamps },
        "limits": {
            "max_buffer_size": limits.max_buffer_size,
            "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
            "max_storage_buffers_per_shader_stage": limits.max_storage_buffers_per_shader_stage,
            "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
            "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
            "max_compute_workgroups_per_dimension": limits.max_compute_workgroups_per_dimension,
            "max_texture_dimension_2d": limits.max_texture_dimension_2d,
        },
    })
}
