#include "app/step_forecast.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace millrace {
namespace {

using testing::HasSubstr;

Cluster one_host(int ranks) {
  return {.ranks = ranks,
          .ranks_per_host = ranks,
          .inside = Link::parse("10:100"),
          .between = Link::parse("1:1000")};
}

TEST(StepForecast, ReadsLinksByNameAndByNumbers) {
  EXPECT_GT(Link::parse("nvlink").bytes_per_second, Link::parse("infiniband").bytes_per_second);
  EXPECT_DOUBLE_EQ(Link::parse("12.5:30").bytes_per_second, 12.5e9);
  EXPECT_DOUBLE_EQ(Link::parse("12.5:30").latency, 30e-6);
  for (const char* wrong :
       {"", "string", "12", "12:", ":3", "0:1", "-1:1", "1:-1", "1:2x", "nan:1", "1:nan"}) {
    try {
      Link::parse(wrong);
      ADD_FAILURE() << wrong;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), HasSubstr("expected nvlink")) << wrong;
    }
  }
}

TEST(StepForecast, OneRankExchangesNothing) {
  EXPECT_EQ(exchange_time(1e6, one_host(1), Exchange::ring), 0);
  const StepForecast alone = forecast_step(
      {.forward = 1, .backward = 2, .update = 0.5, .bucket_bytes = {1e6}}, one_host(1), Exchange::tree);
  EXPECT_DOUBLE_EQ(alone.total(), 3.5);
  EXPECT_DOUBLE_EQ(alone.efficiency(), 1);
}

TEST(StepForecast, RingAndTreeMoveTheSameBytesInOtherNumbersOfStages) {
  // 8 ranks, 10 GB/s: 2 * 7/8 of 80 MB takes 14 ms; 14 stages against 2.
  EXPECT_NEAR(exchange_time(80e6, one_host(8), Exchange::ring), 14e-3 + 14 * 100e-6, 1e-12);
  EXPECT_NEAR(exchange_time(80e6, one_host(8), Exchange::tree), 14e-3 + 2 * 100e-6, 1e-12);
  EXPECT_NEAR(exchange_time(80e6, one_host(3), Exchange::tree), 2 * 80e6 * 2 / 3 / 10e9 + 2 * 100e-6, 1e-12);
}

TEST(StepForecast, HostsExchangeTheirPartsAfterTheirOwnSum) {
  Cluster cluster = one_host(8);
  cluster.ranks_per_host = 4;
  // Inside: 2 * 3/4 of 80 MB at 10 GB/s; between two hosts: 2 * 1/2 of 20 MB at 1 GB/s, one stage of 1 ms
  // each way.
  EXPECT_NEAR(exchange_time(80e6, cluster, Exchange::ring), 12e-3 + 6 * 100e-6 + 20e-3 + 2e-3, 1e-12);
  // On the tree each of 8 slices of 10 MB goes to 3 ranks inside and 4 outside, there and back.
  EXPECT_NEAR(exchange_time(80e6, cluster, Exchange::tree), 6e-3 + 2 * 100e-6 + 80e-3 + 2e-3, 1e-12);
}

TEST(StepForecast, OnlyWhatTheBackwardPassDoesNotCoverIsWaitedFor) {
  Cluster cluster = one_host(2);
  cluster.inside.latency = 0;  // a bucket of 10 MB takes 1 ms
  // Ready at 2, 3, 4, 5 ms after a forward pass of 1: the last one alone is seen.
  const StepCost even{.forward = 1e-3, .backward = 4e-3, .bucket_bytes = {10e6, 10e6, 10e6, 10e6}};
  const StepForecast covered = forecast_step(even, cluster, Exchange::ring);
  EXPECT_NEAR(covered.exchange, 4e-3, 1e-12);
  EXPECT_NEAR(covered.waiting, 1e-3, 1e-12);
  // One bucket of all goes out at the end.
  const StepForecast whole =
      forecast_step({.forward = 1e-3, .backward = 4e-3, .bucket_bytes = {40e6}}, cluster, Exchange::ring);
  EXPECT_NEAR(whole.waiting, 4e-3, 1e-12);
  // Where sending is slower than computing, buckets queue: 2 + 4 * 1 from the first one on.
  const StepForecast queued = forecast_step(
      {.forward = 1e-3, .backward = 1e-3, .bucket_bytes = {10e6, 10e6, 10e6, 10e6}}, cluster, Exchange::ring);
  EXPECT_NEAR(queued.total(), 1.25e-3 + 4e-3, 1e-12);
}

TEST(StepForecast, WhatACoreDoesInTurnAddsUp) {
  const StepCost cost{.forward = 1e-3, .backward = 4e-3, .bucket_bytes = {10e6, 30e6}, .overlapped = false};
  const StepForecast forecast = forecast_step(cost, one_host(2), Exchange::ring);
  EXPECT_NEAR(forecast.waiting, forecast.exchange, 1e-12);
  EXPECT_NEAR(forecast.total(), 5e-3 + forecast.exchange, 1e-12);
}

TEST(StepForecast, FindsTheLinkThatTimesWereMadeWith) {
  for (const Exchange exchange : {Exchange::ring, Exchange::tree}) {
    for (const int ranks : {2, 3, 8}) {
      std::vector<ExchangeTime> times;
      for (const double bytes : {4e3, 1e6, 32e6}) {
        times.push_back({bytes, exchange_time(bytes, one_host(ranks), exchange)});
      }
      const Link link = fit_link(times, ranks, exchange);
      EXPECT_NEAR(link.bytes_per_second, 10e9, 1) << ranks;
      EXPECT_NEAR(link.latency, 100e-6, 1e-12) << ranks;
    }
  }
}

}  // namespace
}  // namespace millrace
