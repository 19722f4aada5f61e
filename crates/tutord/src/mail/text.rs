//! The texts of mails.

/// A mail's subject and plain-text body.
pub(crate) struct MailText {
    pub(crate) subject: &'static str,
    pub(crate) body: String,
}

impl MailText {
    pub(crate) fn verify_email(link: &str) -> Self {
        Self {
            subject: "Please verify your e-mail address",
            body: format!(
                "Welcome!\n\nPlease open this link to verify your e-mail address. It is valid for 24 hours and works once.\n\n{link}\n\n\
                 If you did not register, you can ignore this mail.\n"
            ),
        }
    }

    pub(crate) fn password_reset(link: &str) -> Self {
        Self {
            subject: "Reset your password",
            body: format!(
                "Somebody, hopefully you, asked to reset the password of your account.\n\n\
                 This link is valid for one hour and works once:\n\n{link}\n\n\
                 If it was not you, you can ignore this mail: your password stays as it is.\n"
            ),
        }
    }

    pub(crate) fn address_taken(address: &str) -> Self {
        Self {
            subject: "You already have an account",
            body: format!(
                "Somebody, hopefully you, tried to register with your e-mail address, which already has an account.\n\n\
                 You can log in, or reset your password, at:\n\n{address}\n\n\
                 If it was not you, there is nothing you need to do.\n"
            ),
        }
    }
}
