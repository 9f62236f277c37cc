#include "distributed/rendezvous/rendezvous.h"

#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/distributed/processes/on_processes.h"
#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string error_of(const Place& place, Socket listener = Socket(),
                     std::chrono::duration<double> timeout = 5s) {
  try {
    const Rendezvous run(place, timeout, std::move(listener));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

/// Rank 0 of a run of two, waiting for the other; what it gathers is the result.
std::future<std::vector<std::string>> start_rank_0(LocalRun& run,
                                                   std::chrono::duration<double> timeout = 5s) {
  return std::async(std::launch::async,
                    [place = run.place(0), socket = std::move(run.listener), timeout]() mutable {
                      Rendezvous rank_0(place, timeout, std::move(socket));
                      return rank_0.all_gather("names", "zero");
                    });
}

void expect_the_other_joins(const LocalRun& run, const Place& place,
                            std::future<std::vector<std::string>>& rank_0) {
  Rendezvous other(place, 5s);
  const std::vector<std::string> all{"zero", "one"};
  EXPECT_EQ(other.all_gather("names", "one"), all);
  EXPECT_EQ(rank_0.get(), all);
  EXPECT_EQ(other.place().size, run.size);
}

TEST(Rendezvous, WhoComesToAnotherExchangeIsNamedByBoth) {
  LocalRun run(2);
  const Place place = run.place(1);
  auto rank_0 = start_rank_0(run);
  Rendezvous other(place, 5s);
  EXPECT_EQ(
      test::input_error([&] { other.all_gather("numbers", "1"); }),
      "the processes differ: rank 0 has come to 'names', and rank 1 to 'numbers'; start all of them alike");
  EXPECT_EQ(
      test::input_error([&] { rank_0.get(); }),
      "the processes differ: rank 1 has come to 'numbers', and rank 0 to 'names'; start all of them alike");
}

TEST(Rendezvous, ARunOfOneOpensNothing) {
  Rendezvous alone(Place{}, 1s);
  EXPECT_EQ(alone.all_gather("names", "me"), std::vector<std::string>{"me"});
  EXPECT_EQ(alone.failure(), "");
}

TEST(Rendezvous, StrangersAreRefusedAndDoNotDisturb) {
  LocalRun run(2);
  const Place other = run.place(1);
  auto rank_0 = start_rank_0(run);
  const auto deadline = std::chrono::steady_clock::now() + 5s;
  const Socket silent = connect_to("127.0.0.1", other.master_port, deadline);
  const Socket browser = connect_to("127.0.0.1", other.master_port, deadline);
  std::string request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  EXPECT_TRUE(send_some(browser, request));
  const Socket flood = connect_to("127.0.0.1", other.master_port, deadline);
  std::string bytes(1 << 20, '\0');
  send_some(flood, bytes);

  Place stranger = other;
  stranger.token = "another";
  EXPECT_THAT(error_of(stranger), HasSubstr("it has not the token of this run"));
  Place of_three = other;
  of_three.size = 3;
  EXPECT_THAT(error_of(of_three), HasSubstr("it came as rank 1 of 3, and this run has 2"));
  Place twin = other;
  twin.rank = 0;
  EXPECT_THAT(error_of(twin, listen_at("127.0.0.1", 0)), HasSubstr("rank 0 is here already"));
  expect_the_other_joins(run, other, rank_0);
}

TEST(Rendezvous, NamesWhoDoesNotCome) {
  LocalRun run(3);
  const Place place = run.place(0);
  EXPECT_THAT(error_of(place, std::move(run.listener), 300ms),
              HasSubstr("timed out after 0.3 s: rank 1 did not join, rank 2 did not join"));
  LocalRun large(1000);
  const Place first = large.place(0);
  EXPECT_THAT(error_of(first, std::move(large.listener), 300ms),
              AllOf(HasSubstr("rank 8 did not join, and 991 more"), Not(HasSubstr("rank 9 "))));
}

/// A rank that joins and says no more.
Socket join_by_hand(const LocalRun& run, int rank, int port, const std::string& address = "127.0.0.1") {
  Socket socket = connect_to("127.0.0.1", port, std::chrono::steady_clock::now() + 10s);
  std::string bytes = Frame{Frame::Kind::hello, fmt::format("{}\n{}\ntoken", rank, run.size)}.to_bytes() +
                      Frame{Frame::Kind::gather, "joining\n" + address}.to_bytes();
  EXPECT_TRUE(send_some(socket, bytes));
  return socket;
}

TEST(Rendezvous, ManyMayComeAtOnce) {
  LocalRun run(100);
  const Place first = run.place(0);
  std::vector<Socket> others;
  for (int r = 1; r < run.size; ++r) {  // all of them wait when rank 0 begins to look
    others.push_back(join_by_hand(run, r, first.master_port));
  }
  EXPECT_EQ(error_of(first, std::move(run.listener)), "");
}

TEST(Rendezvous, WhoReachedRank0ByLoopbackHasAnAddressForOtherMachines) {
  const std::string elsewhere = "192.0.2.77";  // of no machine: RFC 5737
  std::string expected;
  try {
    expected = address_towards(elsewhere);
  } catch (const CommunicatorError& error) {
    GTEST_SKIP() << error.what();
  }
  EXPECT_FALSE(is_loopback(expected)) << expected;
  LocalRun run(2);
  const Place first = run.place(0);
  const Socket other = join_by_hand(run, 1, first.master_port, elsewhere);
  EXPECT_EQ(Rendezvous(first, 5s, std::move(run.listener)).own_address(), expected);
  LocalRun here(2);
  const Place alone = here.place(0);
  const Socket neighbour = join_by_hand(here, 1, alone.master_port);
  EXPECT_EQ(Rendezvous(alone, 5s, std::move(here.listener)).own_address(), "127.0.0.1");
}

// Between two beats a survivor alone knows how far the others came: a step needs all of them.
TEST(Rendezvous, TheLastStepIsAtLeastThatOfASurvivor) {
  LocalRun run(2);
  const Place first = run.place(0);
  std::promise<void> stepped;
  auto rank_0 = std::async(std::launch::async, [&] {
    Rendezvous one(first, 100s, std::move(run.listener));
    one.set_step(7);
    stepped.set_value();
    return one.failure(10s);
  });
  Socket dies = join_by_hand(run, 1, first.master_port);
  ASSERT_EQ(stepped.get_future().wait_for(10s), std::future_status::ready);
  dies = Socket();
  EXPECT_EQ(rank_0.get(), "rank 1 died: its connection broke; its last step was 7");
}

TEST(Rendezvous, TheLastStepOfRank0IsAtLeastThatOfASurvivor) {
  LocalRun run(2);
  std::promise<void> stepped;
  auto rank_1 = std::async(std::launch::async, [&, place = run.place(1)] {
    Rendezvous one(place, 100s);
    one.set_step(9);
    stepped.set_value();
    return one.failure(10s);
  });
  pollfd wanted{.fd = run.listener.descriptor(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&wanted, 1, 10'000), 1);
  const Socket rank_0(accept(run.listener.descriptor(), nullptr, nullptr));
  const std::string one = Frame{Frame::Kind::gather, "joining\n127.0.0.1"}.to_bytes();
  std::string answer =
      Frame{Frame::Kind::welcome, ""}.to_bytes() + Frame{Frame::Kind::gathered, one + one}.to_bytes();
  EXPECT_TRUE(send_some(rank_0, answer));
  ASSERT_EQ(stepped.get_future().wait_for(10s), std::future_status::ready);
  shutdown(rank_0.descriptor(), SHUT_RDWR);
  EXPECT_EQ(rank_1.get(), "rank 0 died: its connection broke; its last step was 9");
}

TEST(Rendezvous, SaysThatRank0IsNotThere) {
  LocalRun run(2);
  const Place place = run.place(1);
  EXPECT_THAT(error_of(place, Socket(), 300ms), HasSubstr("did not answer for 0.3 s"));
  run.listener = Socket();
  EXPECT_THAT(error_of(place, Socket(), 300ms), HasSubstr("rank 0 cannot be reached at 127.0.0.1:"));
}

TEST(Socket, ListensAtAllAddressesForAName) {
  const auto reach = [](const Socket& listener, std::chrono::milliseconds patience) {
    return connect_to("127.0.0.2", listener.port(), std::chrono::steady_clock::now() + patience);
  };
  EXPECT_NO_THROW(reach(listen_at("name-of-this-machine", 0), 5s));
  EXPECT_THROW(reach(listen_at("localhost", 0), 100ms), CommunicatorError);
  EXPECT_THROW(reach(listen_at("127.0.0.1", 0), 100ms), CommunicatorError);
}

TEST(Socket, AsksAgainForANameUntilTheDeadline) {
  const auto deadline = std::chrono::steady_clock::now() + 300ms;
  const std::string name(64, 'x');  // too long for a name, so that no server is asked
  testing::internal::CaptureStderr();
  EXPECT_THAT(test::input_error([&] { connect_to(name, 1, deadline); }),
              HasSubstr("joining: host '" + name + "'"));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("millrace: joining: host '" + name + "'"));
  EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
  EXPECT_GE(std::chrono::steady_clock::now(), deadline);
}

TEST(Rendezvous, SaysThatThePortIsTaken) {
  LocalRun run(2);
  const Place place = run.place(0);
  EXPECT_THAT(error_of(place), HasSubstr("rank 0 cannot listen at 127.0.0.1:"));
}

TEST(Rendezvous, NeedsAMaster) {
  EXPECT_THAT(error_of({.rank = 1, .size = 2, .told_by = "PMI_RANK"}),
              HasSubstr("PMI_RANK makes this rank 1 of 2, and nothing says where rank 0 listens"));
}

TEST(Rendezvous, GathersLongTexts) {
  LocalRun run(2);
  const Place first = run.place(0), place = run.place(1);
  const std::string longer(3'000'000, 'x');
  auto rank_0 = std::async(std::launch::async, [&] {
    Rendezvous one(first, 5s, std::move(run.listener));
    return one.all_gather("names", longer);
  });
  Rendezvous other(place, 5s);
  EXPECT_EQ(other.all_gather("names", "short")[0].size(), longer.size());
  EXPECT_EQ(rank_0.get()[1], "short");
}

TEST(Rendezvous, TellsOfTheFirstFailureOnce) {
  LocalRun run(2);
  const Place first = run.place(0), place = run.place(1);
  std::atomic<int> told = 0;
  auto rank_0 = std::async(std::launch::async, [&] {
    Rendezvous one(first, 5s, std::move(run.listener));
    one.on_failure([&] { ++told; });
    return one.failure(5s);
  });
  Rendezvous other(place, 5s);
  other.fail("the disk is full");
  other.fail("and more");
  EXPECT_EQ(rank_0.get(), "rank 1 failed: the disk is full");
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace millrace
