#include "distributed/rendezvous/socket.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/error.h"
#include "base/tell.h"

namespace millrace {
namespace {

constexpr int kAnyPort = 9;

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    throw InputError("joining: host '{}': {}; give an address of rank 0's machine", host,
                     gai_strerror(error));
  }
  return {found, &freeaddrinfo};
}

bool is_address(const std::string& host) {
  in6_addr parsed{};
  return inet_pton(AF_INET, host.c_str(), &parsed) == 1 || inet_pton(AF_INET6, host.c_str(), &parsed) == 1;
}

std::string name_of(const sockaddr_storage& address, socklen_t length, bool with_port) {
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
  getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof(host), port, sizeof(port),
              NI_NUMERICHOST | NI_NUMERICSERV);
  return with_port ? fmt::format("{}:{}", host, port) : host;
}

/// Nobody listens there yet, or the network is not up: the next try may work.
bool connect_once(const Socket& socket, const addrinfo& address,
                  std::chrono::steady_clock::time_point deadline) {
  if (connect(socket.descriptor(), address.ai_addr, address.ai_addrlen) == 0) {
    return true;
  }
  if (errno != EINPROGRESS) {
    return false;
  }
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  pollfd wanted{.fd = socket.descriptor(), .events = POLLOUT, .revents = 0};
  if (left <= 0 || poll(&wanted, 1, static_cast<int>(left)) <= 0) {
    errno = ETIMEDOUT;
    return false;
  }
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &length);
  errno = error;
  return error == 0;
}

}  // namespace

Socket::~Socket() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

int Socket::port() const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

std::string Socket::peer() const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  getpeername(descriptor_, reinterpret_cast<sockaddr*>(&address), &length);
  return name_of(address, length, true);
}

std::string Socket::own_address() const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &length);
  return name_of(address, length, false);
}

bool may_be_host(const std::string& host) {
  try {
    resolve(host, kAnyPort, AI_NUMERICHOST);
    return true;
  } catch (const InputError&) {
    const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
    const auto in_name = [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
    };
    const std::string last = host.substr(host.rfind('.') + 1);  // digits alone are of a wrong address
    return !host.empty() && std::ranges::all_of(host, in_name) && !std::ranges::all_of(last, is_digit);
  }
}

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

std::string address_towards(const std::string& address) {
  const Addresses found = resolve(address, kAnyPort, AI_NUMERICHOST);
  const Socket probe(::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));  // sends nothing
  if (connect(probe.descriptor(), found->ai_addr, found->ai_addrlen) != 0) {
    throw CommunicatorError("joining: this machine has no way to {}, which reached rank 0: {}", address,
                            std::strerror(errno));
  }
  return probe.own_address();
}

Socket listen_at(const std::string& host, int port) {
  using Hosts = std::vector<std::string>;
  // "::" stands for the addresses of both families.
  const Hosts hosts = is_address(host) || host == "localhost" ? Hosts{host} : Hosts{"::", "0.0.0.0"};
  int error = 0;
  for (const std::string& one : hosts) {
    const Addresses addresses = resolve(one, port, AI_PASSIVE);
    for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
      Socket socket(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol));
      const int yes = 1, no = 0;
      setsockopt(socket.descriptor(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
      setsockopt(socket.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
      if (socket.is_open() && bind(socket.descriptor(), at->ai_addr, at->ai_addrlen) == 0 &&
          listen(socket.descriptor(), SOMAXCONN) == 0) {
        return socket;
      }
      error = errno;
    }
  }
  throw MachineError("joining: rank 0 cannot listen at {}:{}: {}; give a free port of its machine", host,
                     port, std::strerror(error));
}

Socket connect_to(const std::string& host, int port, std::chrono::steady_clock::time_point deadline) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::seconds kMostForOne{5};  // an address that swallows packets leaves time for others
  bool said = false;
  while (true) {
    const bool is_last = Clock::now() >= deadline;
    int error = 0;
    Addresses addresses(nullptr, &freeaddrinfo);
    try {
      addresses = resolve(host, port, 0);
    } catch (const InputError& unknown) {  // the name of a machine that starts may come late
      if (is_last) {
        throw;
      }
      if (!std::exchange(said, true)) {
        tell(fmt::format("millrace: {}; asking again until the timeout", unknown.what()));
      }
    }
    for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
      Socket socket(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol));
      if (socket.is_open() && connect_once(socket, *at, std::min(deadline, Clock::now() + kMostForOne))) {
        const int yes = 1;
        setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        return socket;
      }
      error = errno;
    }
    if (is_last) {
      throw CommunicatorError("joining: rank 0 cannot be reached at {}:{}: {}; is it running?", host, port,
                              std::strerror(error));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::string Frame::to_bytes() const {
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) {
    bytes += static_cast<char>(text.size() >> shift);
  }
  return bytes + static_cast<char>(kind) + text;
}

bool Frame::take(std::string& bytes, std::size_t most, Frame& frame) {
  constexpr std::size_t kHeader = 5;
  if (bytes.size() < kHeader) {
    return false;
  }
  std::size_t length = 0;
  for (unsigned i = 0; i < 4; ++i) {
    length |= static_cast<std::size_t>(static_cast<std::uint8_t>(bytes[i])) << (8 * i);
  }
  if (length > most || bytes[4] > static_cast<char>(Kind::goodbye) || bytes[4] < 0) {
    throw CommunicatorError("what came is no message of this program");
  }
  if (bytes.size() < kHeader + length) {
    return false;
  }
  frame = {.kind = static_cast<Kind>(bytes[4]), .text = bytes.substr(kHeader, length)};
  bytes.erase(0, kHeader + length);
  return true;
}

bool receive_some(const Socket& socket, std::string& bytes) {
  char buffer[1 << 14];
  for (int reads = 0; reads < 4;) {  // who sends without an end must not keep the others waiting
    const ssize_t count = recv(socket.descriptor(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count > 0) {
      bytes.append(buffer, static_cast<std::size_t>(count));
      ++reads;
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else {
      return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
  }
  return true;
}

bool send_some(const Socket& socket, std::string& bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(socket.descriptor(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      bytes.erase(0, static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK;
    }
  }
  return true;
}

}  // namespace millrace
