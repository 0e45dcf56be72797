//! The tables of `uvs-perf scaling`.

use crate::engine::PREPARATION;
use crate::results::Measurement;
use crate::table::{Table, grouped, millions};

pub(super) fn print(results: &[Measurement]) {
    let mut table = Table::new(&[
        "workers",
        "flows",
        "ns: least",
        "median",
        "greatest worker",
        "beside one",
        "all together",
        "fewest flows",
        "most flows",
        "two bare lines ns",
        "preparation ns",
        "windows",
        "discarded",
    ]);
    for result in results {
        let quantity = |name: &str| result.quantities.get(name).copied();
        let ns = |name: &str| quantity(name).map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}"));
        let percent = |name: &str| {
            quantity(name).map_or_else(|| "-".to_owned(), |part| format!("{:.0} %", part * 100.0))
        };
        let number = |name: &str| result.parameters.get(name).and_then(serde_json::Value::as_u64);
        let flows = number("flows").map(grouped);
        let each = number("flows_per_worker").map(|flows| format!("{} each", grouped(flows)));
        table.row([
            number("workers").map_or_else(String::new, grouped),
            flows.or(each).unwrap_or_default(),
            ns("least_worker_ns"),
            ns("median_worker_ns"),
            ns("greatest_worker_ns"),
            quantity("ns_over_one_worker_alone")
                .map_or_else(|| "1.00".to_owned(), |ratio| format!("{ratio:.2}")),
            quantity("sum_of_workers_packets_per_second").map_or_else(String::new, millions),
            percent("least_flows_over_mean"),
            percent("greatest_flows_over_mean"),
            result
                .control
                .as_ref()
                .map_or_else(String::new, |control| format!("{:.1}", control.figures.ns_per_packet)),
            result
                .parts
                .get(PREPARATION)
                .map_or_else(String::new, |part| format!("{:.1}", part.ns_per_packet)),
            result.figures.windows.to_string(),
            result.figures.windows_discarded.to_string(),
        ]);
    }
    print!("{table}");
    for result in results {
        let workers = &result.parameters["workers"];
        let mut last = String::new();
        for (name, value) in &result.quantities {
            if name.starts_with("redirected_") && name.ends_with("_hash") {
                last.push_str(&format!(
                    "  {} {:.1} %",
                    name["redirected_".len()..].replace('_', " "),
                    value * 100.0
                ));
            }
        }
        if !last.is_empty() && result.parameters.contains_key("flows") {
            println!("{workers} workers, packets redirected:{last}");
        }
        let lines = result.quantities.iter().filter(|(name, _)| name.contains("_taken_per_"));
        for (name, value) in lines {
            println!("{workers} workers, {}: {value:.3}", name.replace('_', " "));
        }
        if let (Some(ratio), Some(rate)) = (
            result.quantities.get("together_over_alone"),
            result.quantities.get("together_packets_per_second"),
        ) {
            println!(
                "{workers} workers at the same time: {} packets/s with preparation, {ratio:.2} of one",
                millions(*rate)
            );
        }
        if !result.dropped.is_empty() {
            println!("dropped with {workers} workers: {:?}", result.dropped);
        }
    }
}
