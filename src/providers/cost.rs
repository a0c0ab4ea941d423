//! What a call costs: OpenClaw's own calculation (`packages/llm-core/src/usage-cost.ts`, `calculateUsageCost`).

use super::message::{Cost, Usage};

/// Prices of a model for a million tokens, in any currency. What has no price costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    /// Of the prompt. What is written to the cache for an hour costs twice as much.
    pub input: f64,
    /// Of the answer.
    pub output: f64,
    /// Of what is read from the cache.
    pub cache_read: f64,
    /// Of what is written to the cache for the usual time.
    pub cache_write: f64,
}

/// What these tokens cost. What was not counted costs nothing.
pub fn cost(usage: &Usage, prices: &Prices) -> Cost {
    #[expect(clippy::cast_precision_loss, reason = "JavaScript counts in doubles, too")]
    let count = |tokens: Option<u64>| tokens.unwrap_or_default() as f64;
    let price = |price: f64| if price.is_finite() { price } else { 0.0 };
    let million = 1e6;
    let cache_write = count(usage.cache_write);
    let hour = count(usage.cache_write_1h).min(cache_write);
    // In the order of the original: sums of doubles depend on it.
    let input = count(usage.input) * price(prices.input) / million;
    let output = count(usage.output) * price(prices.output) / million;
    let cache_read = count(usage.cache_read) * price(prices.cache_read) / million;
    let cache_write =
        ((cache_write - hour) * price(prices.cache_write) + hour * price(prices.input) * 2.0) / million;
    Cost { input, output, cache_read, cache_write, total: input + output + cache_read + cache_write }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To the last bit: as JavaScript has it.
    fn same(a: f64, b: f64) {
        assert_eq!(a.to_bits(), b.to_bits(), "{a} {b}");
    }

    #[test]
    fn cached_tokens_have_their_own_prices_and_an_hour_costs_twice_the_input() {
        let usage = Usage {
            input: Some(1_000_000),
            output: Some(2_000_000),
            cache_read: Some(500_000),
            cache_write: Some(300_000),
            cache_write_1h: Some(100_000),
            ..Usage::default()
        };
        let prices = Prices { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };
        let cost = cost(&usage, &prices);
        assert_eq!((cost.input, cost.output, cost.cache_read), (3.0, 30.0, 0.15));
        same(cost.cache_write, (200_000.0 * 3.75 + 100_000.0 * 3.0 * 2.0) / 1e6);
        same(cost.total, 3.0 + 30.0 + 0.15 + cost.cache_write);
    }

    #[test]
    fn what_was_not_counted_costs_nothing_and_an_hour_is_no_more_than_was_written() {
        let prices = Prices { input: 1.0, output: f64::NAN, cache_read: 1.0, cache_write: 1.0 };
        assert_eq!(cost(&Usage::default(), &prices), Cost::default());
        let usage =
            Usage { cache_write: Some(1), cache_write_1h: Some(5), output: Some(9), ..Usage::default() };
        same(cost(&usage, &prices).total, 2.0 / 1e6);
    }
}
