//! Reads one value of a pod's /metrics page. Knows the text format only.

use crate::fortia::{Fortia, FortiaError};

/// Sum of a metric over its label sets, read from a pod's admin port.
///
/// # Errors
/// When the pod cannot be reached.
pub async fn of_pod(fortia: &Fortia, pod: &str, metric: &str) -> Result<f64, FortiaError> {
    let forward = fortia.cluster.forward(&fortia.pod_address(pod, 9000).await?).await?;
    let page = async { reqwest::get(format!("{}/metrics", forward.url())).await?.text().await };
    let page = page.await.map_err(|error| FortiaError::Metrics(pod.into(), error.to_string()))?;
    sum(&page, metric)
        .ok_or_else(|| FortiaError::Metrics(pod.into(), format!("{metric} is not among\n{page}")))
}

fn sum(page: &str, metric: &str) -> Option<f64> {
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| line.strip_prefix(metric).filter(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_of_one_metric_add_up() {
        let page = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3.5\nab 7\n";
        assert_eq!(sum(page, "a"), Some(5.5));
        assert_eq!(sum(page, "b"), None);
    }
}
