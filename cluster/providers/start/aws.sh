# How a machine on AWS knows itself, and reaches what is stored for its cluster.
METADATA=http://169.254.169.254/latest
export AWS_DEFAULT_REGION="$REGION" AWS_PAGER=''

# With a token, as version 2 of the metadata service wants it.
metadata() {
    local token
    token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token") || return 1
    curl -sf -m 5 -H "X-aws-ec2-metadata-token: $token" "$METADATA/$1"
}

instance() {
    metadata meta-data/instance-id
}

address() {
    metadata meta-data/local-ipv4
}

# Says why there is no more work to take: AWS tells spot machines two minutes before.
taken_back() {
    metadata meta-data/spot/instance-action >/dev/null && echo 'this machine is taken back'
}

leave() {
    sleep infinity
}

# A value that is kept secret: a parameter, or a secret by its whole name.
parameter() {
    case "$1" in
    arn:*) aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text ;;
    *) aws ssm get-parameter --name "$1" --with-decryption --query Parameter.Value --output text ;;
    esac
}

fetch() {
    aws s3 cp "s3://$BUCKET/$1" "$2" --only-show-errors
}

store() {
    aws s3 cp "$1" "s3://$BUCKET/$RUNS$2" --only-show-errors
}

# A folder beside the log.
store_folder() {
    aws s3 cp --recursive "$EVO/$1" "s3://$BUCKET/$RUNS$1/" --only-show-errors
}

install_tools() {
    if ! command -v aws >/dev/null && command -v apt-get >/dev/null; then
        patiently apt-get -qq update
        patiently apt-get -qqy install awscli
    fi
}
