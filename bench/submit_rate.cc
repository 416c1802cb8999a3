// Submits jobs from several clients at once and checks that none is lost.
// Usage: submit_rate ADDRESS JOBS CLIENTS; the cluster has no workers, so that the jobs stay queued.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/api/cluster_client.h"

namespace {

using gpipe::client::ClientOptions;
using gpipe::client::ClusterClient;

gpipe::v1::SubmitJobRequest Request(int number) {
  gpipe::v1::SubmitJobRequest request;
  request.set_request_id(absl::StrCat("submit-rate-", number));
  auto& spec = *request.mutable_spec();
  spec.set_name("queued");
  auto& linear = *spec.mutable_model()->add_sequential()->mutable_linear();
  linear.set_in_features(8);
  linear.set_out_features(8);
  auto& inputs = *spec.mutable_infer()->mutable_random_inputs();
  inputs.add_shape(16);
  inputs.add_shape(8);
  return request;
}

// Submits until the common counter is used up. Returns the ids that were acknowledged.
std::vector<std::string> SubmitSome(const std::string& address, std::atomic<int>& next, int jobs) {
  ClusterClient client(ClientOptions{.address = address});
  std::vector<std::string> acknowledged;
  for (int number = next++; number < jobs; number = next++) {
    const auto job = client.SubmitJob(Request(number));
    if (!job.ok()) std::fprintf(stderr, "%s\n", job.status().ToString().c_str());
    if (job.ok()) acknowledged.push_back(job->id());
  }
  return acknowledged;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: submit_rate ADDRESS JOBS CLIENTS\n");
    return 2;
  }
  const std::string address = argv[1];
  const int jobs = std::atoi(argv[2]), clients = std::atoi(argv[3]);
  std::atomic<int> next = 0;
  std::vector<std::vector<std::string>> acknowledged(clients);
  const auto begin = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < clients; ++i)
      threads.emplace_back([&, i] { acknowledged[i] = SubmitSome(address, next, jobs); });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  std::set<std::string> ids;
  for (const auto& some : acknowledged) ids.insert(some.begin(), some.end());
  ClusterClient client(ClientOptions{.address = address});
  const auto listed = client.ListJobs({}, 0);
  std::set<std::string> stored;
  if (listed.ok()) {
    for (const auto& job : listed->jobs()) stored.insert(job.id());
  }
  size_t lost = 0;
  for (const std::string& id : ids) lost += stored.count(id) == 0;
  std::printf("%zu jobs acknowledged to %d clients in %.2f s: %.0f per second; %zu lost\n", ids.size(), clients,
              seconds, ids.size() / seconds, lost);
  return lost == 0 && static_cast<int>(ids.size()) == jobs ? 0 : 1;
}
