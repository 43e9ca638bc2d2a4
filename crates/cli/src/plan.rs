//! `yolo-lat info --plan`: what a frame costs on a GPU.

use std::fmt::Write;

use clap::Args;
use serde_json::json;
use yolo_lat::engine::gpu::{DispatchReport, PlanReport, Roofline};
use yolo_lat::model::{CheckedGraph, Graph};

#[derive(Args, Debug)]
pub(super) struct PlanArguments {
    /// Print the dispatches of a frame on a GPU: bytes moved, arithmetic, and what the roofline model gives for --gpu
    #[arg(long)]
    plan: bool,
    /// The GPU of --plan: a known name, or TFLOPS,GB/S from its data sheet
    #[arg(long, value_name = "GPU", default_value = "rtx-3060", requires = "plan")]
    gpu: Roofline,
}

impl PlanArguments {
    /// Adds the dispatches, if they are wanted.
    pub(super) fn add_to(&self, value: &mut serde_json::Value, graph: &CheckedGraph) -> anyhow::Result<()> {
        if self.plan {
            let plan = PlanReport::new(graph)?;
            value["dispatches"] = plan.dispatches.len().into();
            value["bytes_per_frame"] = plan.bytes().into();
            value["arena_bytes"] = plan.arena_bytes.into();
            value["gpu"] = json!(self.gpu.name);
            value["plan"] = as_json(&plan, &self.gpu);
        }
        Ok(())
    }

    /// The dispatches, if they are wanted.
    pub(super) fn table(&self, graph: &CheckedGraph) -> anyhow::Result<Option<String>> {
        self.plan.then(|| Ok(as_table(graph, &PlanReport::new(graph)?, &self.gpu))).transpose()
    }
}

fn as_json(plan: &PlanReport, gpu: &Roofline) -> serde_json::Value {
    let dispatch = |dispatch: &DispatchReport| {
        json!({
            "shader": dispatch.shader, "nodes": dispatch.nodes, "workgroups": dispatch.groups, "bytes": dispatch.bytes,
            "multiply_adds": dispatch.multiply_adds, "roofline_us": gpu.microseconds(dispatch),
        })
    };
    plan.dispatches.iter().map(dispatch).collect()
}

fn as_table(graph: &Graph, plan: &PlanReport, gpu: &Roofline) -> String {
    let head = ["", "shader", "groups", "bytes", "multiply-adds", "roofline us", "nodes"];
    let [number, shader, groups, bytes, arithmetic, time, nodes] = head;
    let mut table = format!("{number:>3} {shader:<18} {groups:>6} {bytes:>10} {arithmetic:>13} {time:>11}  {nodes}\n");
    for (index, dispatch) in plan.dispatches.iter().enumerate() {
        let DispatchReport { shader, groups, bytes, multiply_adds, nodes } = dispatch;
        let (time, nodes) = (gpu.microseconds(dispatch), nodes.join(" "));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{:>3} {shader:<18} {groups:>6} {bytes:>10} {multiply_adds:>13} {time:>11.2}  {nodes}",
            index + 1
        );
    }
    let total: f64 = plan.dispatches.iter().map(|dispatch| gpu.microseconds(dispatch)).sum();
    let _ = writeln!(
        table,
        "{}: {} dispatches, {:.2} MB moved, {:.2} MB of feature maps, {:.3} G multiply-adds; at least {total:.1} us on {} \
         besides what starting the dispatches takes",
        graph.name,
        plan.dispatches.len(),
        plan.bytes() as f64 / 1e6,
        plan.arena_bytes as f64 / 1e6,
        graph.multiply_adds() as f64 / 1e9,
        gpu.name,
    );
    table
}
