#ifndef GPIPE_TESTS_UNIT_CERTIFICATES_H_
#define GPIPE_TESTS_UNIT_CERTIFICATES_H_

#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/file.h"
#include "common/net/tls_options.h"
#include "gtest/gtest.h"
#include "tests/unit/paths.h"

namespace gpipe {

// A private CA and its certificates, made by deploy/certs.sh in a folder that goes with the object.
class Certificates {
 public:
  explicit Certificates(const std::string& hosts = "") : folder_(TemporaryFolder::Create("gpipe-certs").value()) {
    Make("", hosts);
  }

  // What `certs.sh OPTIONS FOLDER HOSTS` does.
  void Make(const std::string& options, const std::string& hosts = "") const {
    const std::filesystem::path script = SourceFolder() / "deploy" / "certs.sh";
    const std::string command =
        script.string() + " " + options + " " + folder_.path().string() + " " + hosts + " > /dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }

  std::filesystem::path At(const std::string& file) const { return folder_.path() / file; }
  // `orchestrator`, `worker`, `client`, `admin`, `read`.
  TlsOptions Of(const std::string& name) const { return {At("ca.crt"), At(name + ".crt"), At(name + ".key")}; }
  TlsOptions CaOnly() const { return {At("ca.crt"), "", ""}; }

 private:
  TemporaryFolder folder_;
};

}  // namespace gpipe

#endif  // GPIPE_TESTS_UNIT_CERTIFICATES_H_
