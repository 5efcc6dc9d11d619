# A machine of workers has nothing that others would miss but its log.
wrap_up() {
    upload_log
}
