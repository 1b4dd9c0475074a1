//! Ticking: two tickers share the world, and it goes on.

use std::error::Error;
use std::time::Duration;

use fortia_e2e::api::Api;
use fortia_e2e::metrics;
use fortia_e2e::shared;

#[tokio::test]
async fn two_tickers_share_the_regions_and_the_tick_advances() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let before = api.info().await?.tick;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = api.info().await?.tick;
    assert!((before + 3..=before + 7).contains(&after), "tick {before} -> {after} in 5 s at 1 s a tick");

    let tickers = world.pods("ticker").await?;
    assert_eq!(tickers.len(), 2, "{tickers:?}");
    let mut shares = Vec::new();
    for pod in &tickers {
        shares.push(metrics::of_pod(&world, pod, "fortia_ticker_regions").await?);
    }
    assert!(shares.iter().all(|regions| *regions >= 1.0), "a ticker has nothing to do: {shares:?}");
    assert_eq!(
        shares.iter().sum::<f64>(),
        81.0,
        "radius 8, which may grow to 32, is 9 x 9 regions: {shares:?}"
    );
    Ok(())
}
