#include "client/cli/app.h"

int main(int argc, char** argv) { return gpipe::client::Main(argc, argv); }
